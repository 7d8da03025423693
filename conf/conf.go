// Package conf turns one TOML file and the environment into one Config value. It assembles the
// Config types of the packages that obey them and knows nothing about their meaning: it adds the
// notation (durations, sizes), the defaults, line numbers for every problem, where each value comes
// from, and what changed between two files. Loading reports every problem at once and never
// returns half a configuration.
package conf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/cstproxy/cstproxy/admin"
)

// Config is everything that can be configured.
type Config struct {
	Admin admin.Config

	path    string
	origins map[string]Origin
}

// OriginKind says what kind of place a value comes from.
type OriginKind int

// The places, weakest first.
const (
	FromDefault OriginKind = iota
	FromFile
	FromEnvironment
)

func (k OriginKind) String() string {
	switch k {
	case FromFile:
		return "file"
	case FromEnvironment:
		return "env"
	}
	return "default"
}

// Origin is where a value comes from.
type Origin struct {
	Kind OriginKind
	// Where is file:line or the variable's name; empty for a default.
	Where string
}

// Path is the file that c was loaded from, "" for defaults.
func (c *Config) Path() string { return c.path }

// Default returns the configuration of an empty file.
func Default() *Config {
	return &Config{
		Admin:   admin.DefaultConfig(),
		origins: map[string]Origin{},
	}
}

// mounts says which section of the file is which package's value.
func (c *Config) mounts() []mount {
	return []mount{
		{path: "admin", value: reflect.ValueOf(&c.Admin).Elem()},
	}
}

// elementDefaults are what an element of an array of tables has before its keys are read.
func elementDefaults() map[reflect.Type]reflect.Value {
	return map[reflect.Type]reflect.Value{}
}

// Load reads the file at path and then the environment (as os.Environ gives it) over the defaults.
// The error is of type Problems and holds every problem of the file and of the variables.
func Load(path string, environ []string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		var pathErr *os.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return nil, Problems{{File: path, Text: fmt.Sprintf("cannot be read: %v", err)}}
	}
	return Parse(path, string(text), environ)
}

// Parse is Load for a text that is already in memory; path serves messages and relative file names.
func Parse(path, text string, environ []string) (*Config, error) {
	c := Default()
	c.path = path
	doc := map[string]any{}
	if _, err := toml.Decode(text, &doc); err != nil {
		return nil, Problems{syntaxProblem(path, err)}
	}
	d := &decoder{
		file: path, lines: indexLines(text), origins: c.origins,
		elements: elementDefaults(), sections: sectionKeys(c.mounts()),
	}
	d.root(doc, c.mounts())
	d.environment(environ, c.mounts())
	c.resolvePaths()
	d.secrets(c)
	if len(d.problems) == 0 { // what is half read would be reported twice
		d.validate(c)
	}
	if len(d.problems) > 0 {
		return nil, d.problems.sorted()
	}
	return c, nil
}

func syntaxProblem(path string, err error) Problem {
	var parse toml.ParseError
	if errors.As(err, &parse) {
		return Problem{File: path, Line: parse.Position.Line, Text: parse.Message}
	}
	return Problem{File: path, Text: err.Error()}
}

// sectionKeys lists the keys of every section, nested ones as section.subsection.
func sectionKeys(mounts []mount) map[string][]string {
	sections := map[string][]string{}
	var walk func(path string, t reflect.Type)
	walk = func(path string, t reflect.Type) {
		for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if !isTable(t) {
			return
		}
		for _, f := range fields(reflect.New(t).Elem()) {
			sections[path] = append(sections[path], f.name)
			walk(join(path, f.name), f.value.Type())
		}
	}
	for _, m := range mounts {
		walk(m.path, m.value.Type())
	}
	return sections
}

// resolvePaths makes file names that stand in the file relative to the file's own folder, so that
// the meaning of a file does not depend on where cstproxy was started.
func (c *Config) resolvePaths() {
	folder := filepath.Dir(c.path)
	for _, l := range c.leaves() {
		name := lastKey(l.path)
		isPath := strings.HasSuffix(name, "_file") || strings.HasSuffix(name, "_dir")
		if !isPath || !l.value.CanSet() || l.value.Kind() != reflect.String || c.origins[l.path].Kind != FromFile {
			continue
		}
		if p := l.value.String(); p != "" && !filepath.IsAbs(p) {
			l.value.SetString(filepath.Join(folder, p))
		}
	}
}

// secrets reads the admin token's file and refuses two tokens at once.
func (d *decoder) secrets(c *Config) {
	if c.Admin.TokenFile == "" {
		return
	}
	token, file := c.origins["admin.token"], c.origins["admin.token_file"]
	switch {
	case c.Admin.Token != "" && token.Kind > file.Kind:
		return
	case c.Admin.Token != "" && token.Kind == file.Kind:
		d.problem("admin.token_file", "token and token_file are both set; keep one of them")
		return
	}
	text, err := readSecret(c.Admin.TokenFile)
	if err != nil {
		d.problem("admin.token_file", "token_file: %v", err)
		return
	}
	c.Admin.Token = text
	c.origins["admin.token"] = file
}

const maxSecret = 64 << 10 // bytes; a larger file is not a secret but a mistake

// readSecret returns the first line of a file.
func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	if info.Size() > maxSecret || info.IsDir() {
		return "", fmt.Errorf("read the secret: %s is not a file with one line", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", fmt.Errorf("read the secret: the first line of %s is empty", path)
	}
	return line, nil
}
