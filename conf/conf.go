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
	"github.com/cstproxy/cstproxy/balancer"
	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/member"
	"github.com/cstproxy/cstproxy/proxy"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/catalog"
	"github.com/cstproxy/cstproxy/router"
)

// Config is everything that can be configured.
type Config struct {
	// Proxy has the sections [proxy], [[listen]] and [[pool]].
	Proxy proxy.Config
	// HBA has the sections [[hba]], in their order: the first that matches a client counts.
	HBA []auth.Rule
	// Catalog has the section [catalog]; whom to ask as is a matter of each [[cluster]].
	Catalog catalog.Config
	// Balancer has the section [balancer].
	Balancer balancer.Config
	// Routing has the sections [[routing.rule]].
	Routing Routing
	// HA has the sections [ha] and [[cluster]].
	HA ha.Config
	// Fleet has the section [fleet].
	Fleet member.Config
	Admin admin.Config

	path    string
	origins map[string]Origin
}

// Routing is the section [routing].
type Routing struct {
	// Rules decide for sessions and tables that match; the first one counts.
	Rules []router.Rule `toml:"rule"`
}

// Validate says which rules cannot be obeyed.
func (r Routing) Validate() error {
	var errs []error
	for i, rule := range r.Rules {
		if _, err := router.CompileRules([]router.Rule{rule}); err != nil {
			if cause := errors.Unwrap(err); cause != nil {
				err = cause // without "rule 1", which counts within this one
			}
			errs = append(errs, fmt.Errorf("rule %d: %w", i+1, err))
		}
	}
	return errors.Join(errs...)
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
		Proxy:    proxy.DefaultConfig(),
		HBA:      auth.DefaultRules(),
		Catalog:  catalog.DefaultConfig(),
		Balancer: balancer.DefaultConfig(),
		HA:       ha.DefaultConfig(),
		Fleet:    member.DefaultConfig(),
		Admin:    admin.DefaultConfig(),
		origins:  map[string]Origin{},
	}
}

// mounts says which section of the file is which package's value.
func (c *Config) mounts() []mount {
	return []mount{
		{path: "proxy", value: reflect.ValueOf(&c.Proxy).Elem()},
		{path: "listen", value: reflect.ValueOf(&c.Proxy.Listeners).Elem()},
		{path: "pool", value: reflect.ValueOf(&c.Proxy.Pools).Elem()},
		{path: "catalog", value: reflect.ValueOf(&c.Catalog).Elem(), hidden: []string{"auth_user", "auth_password"}},
		{path: "balancer", value: reflect.ValueOf(&c.Balancer).Elem()},
		{path: "routing", value: reflect.ValueOf(&c.Routing).Elem()},
		{path: "hba", value: reflect.ValueOf(&c.HBA).Elem()},
		{path: "ha", value: reflect.ValueOf(&c.HA).Elem(), hidden: []string{"cluster"}},
		{path: "cluster", value: reflect.ValueOf(&c.HA.Clusters).Elem()},
		{path: "fleet", value: reflect.ValueOf(&c.Fleet).Elem()},
		{path: "admin", value: reflect.ValueOf(&c.Admin).Elem()},
	}
}

// elementDefaults are what an element of an array of tables has before its keys are read.
func elementDefaults() map[reflect.Type]reflect.Value {
	presets := map[reflect.Type]reflect.Value{}
	for _, preset := range []any{
		proxy.Listener{Mode: proxy.ListenAuto},
		ha.DefaultCluster(),
		ha.DefaultNode(),
	} {
		presets[reflect.TypeOf(preset)] = reflect.ValueOf(preset)
	}
	return presets
}

// Load reads the file at path and then the environment (as os.Environ gives it) over the defaults.
// The error is of type Problems and holds every problem of the file and of the variables.
func Load(path string, environ []string) (*Config, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, text, environ)
}

// Parse is Load for a text that is already in memory; path serves messages and relative file names.
func Parse(path, text string, environ []string) (*Config, error) {
	doc, err := document(path, text)
	if err != nil {
		return nil, err
	}
	c := Default()
	c.path = path
	return c.read(doc, indexLines(text), c.mounts(), environ)
}

// LoadAdmin reads the section [admin] alone, so that ctl can reach a running cstproxy although
// somebody is in the middle of editing the rest of its file.
func LoadAdmin(path string, environ []string) (admin.Config, error) {
	text, err := readFile(path)
	if err != nil {
		return admin.Config{}, err
	}
	doc, err := document(path, text)
	if err != nil {
		return admin.Config{}, err
	}
	c := Default()
	c.path = path
	var mounts []mount
	for _, m := range c.mounts() {
		if m.path == "admin" {
			mounts = append(mounts, m)
		} else {
			delete(doc, m.path)
		}
	}
	if _, err := c.read(doc, indexLines(text), mounts, environ); err != nil {
		return admin.Config{}, err
	}
	return c.Admin, nil
}

func readFile(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		var pathErr *os.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return "", Problems{{File: path, Text: fmt.Sprintf("cannot be read: %v", err)}}
	}
	return string(text), nil
}

func document(path, text string) (map[string]any, error) {
	doc := map[string]any{}
	if _, err := toml.Decode(text, &doc); err != nil {
		return nil, Problems{syntaxProblem(path, err)}
	}
	return doc, nil
}

// read fills c's mounts from the document and the environment.
func (c *Config) read(doc map[string]any, lines lineIndex, mounts []mount, environ []string) (*Config, error) {
	d := &decoder{
		file: c.path, lines: lines, origins: c.origins,
		elements: elementDefaults(), sections: sectionKeys(mounts), hidden: hiddenKeys(mounts),
	}
	d.root(doc, mounts)
	d.environment(environ, mounts)
	c.resolvePaths()
	d.secrets(c)
	d.files(c)
	if len(d.problems) == 0 { // what is half read would be reported twice
		d.validate(c, mounts)
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

func hiddenKeys(mounts []mount) []string {
	var list []string
	for _, m := range mounts {
		for _, key := range m.hidden {
			list = append(list, join(m.path, key))
		}
	}
	return list
}

// sectionKeys lists the keys of every section, nested ones as section.subsection.
func sectionKeys(mounts []mount) map[string][]string {
	sections, hidden := map[string][]string{}, hiddenKeys(mounts)
	var walk func(path string, t reflect.Type)
	walk = func(path string, t reflect.Type) {
		for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if !isTable(t) {
			return
		}
		for _, f := range fields(reflect.New(t).Elem()) {
			if indexOf(hidden, join(path, f.name)) < 0 {
				sections[path] = append(sections[path], f.name)
				walk(join(path, f.name), f.value.Type())
			}
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
		isPath := strings.HasSuffix(name, "_file") || strings.HasSuffix(name, "_dir") || name == "sslrootcert"
		if !isPath || !l.value.CanSet() || l.value.Kind() != reflect.String || c.origins[l.path].Kind != FromFile {
			continue
		}
		if p := l.value.String(); p != "" && !filepath.IsAbs(p) {
			l.value.SetString(filepath.Join(folder, p))
		}
	}
}

// files reports files that are not there, so that check finds them before a start does.
func (d *decoder) files(c *Config) {
	for _, l := range c.leaves() {
		if !strings.HasSuffix(lastKey(l.path), "_file") || l.value.Kind() != reflect.String || l.value.String() == "" {
			continue
		}
		f, err := os.Open(l.value.String())
		if err != nil {
			d.invalid(l.path, fmt.Sprintf("%s: %v", lastKey(l.path), err))
			continue
		}
		_ = f.Close() // nothing was written
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
	text, err := ReadSecret(c.Admin.TokenFile)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return // files says so
	}
	if err != nil {
		d.problem("admin.token_file", "token_file: %v", err)
		return
	}
	c.Admin.Token = text
	c.origins["admin.token"] = file
}

const maxSecret = 64 << 10 // bytes; a larger file is not a secret but a mistake

// ReadSecret returns the first line of a file.
func ReadSecret(path string) (string, error) {
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
