package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// writeYAML writes data as YAML with the names and the order of its JSON. JSON needs little of
// YAML: maps, lists, numbers, and strings that are quoted unless they are plain words.
func writeYAML(b *bytes.Buffer, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("write yaml: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	y := yamlWriter{out: b, dec: dec}
	if err := y.value(0, afterNothing); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("write yaml: %w", err)
	}
	return nil
}

// position is what stands to the left of a value.
type position int

const (
	afterNothing position = iota
	afterKey              // "key:"
	afterDash             // "- "
)

type yamlWriter struct {
	out *bytes.Buffer
	dec *json.Decoder
}

func (y *yamlWriter) value(indent int, at position) error {
	token, err := y.dec.Token()
	if err != nil {
		return err
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			return y.mapping(indent, at)
		}
		return y.list(indent, at)
	default:
		if at == afterKey {
			y.out.WriteByte(' ')
		}
		y.out.WriteString(scalar(t))
		y.out.WriteByte('\n')
	}
	return nil
}

func (y *yamlWriter) mapping(indent int, at position) error {
	if !y.dec.More() {
		return y.empty("{}", at)
	}
	if at == afterKey {
		y.out.WriteByte('\n')
	}
	for first := true; y.dec.More(); first = false {
		key, err := y.dec.Token()
		if err != nil {
			return err
		}
		if !first || at != afterDash {
			y.out.WriteString(strings.Repeat("  ", indent))
		}
		y.out.WriteString(scalar(key) + ":")
		if err := y.value(indent+1, afterKey); err != nil {
			return err
		}
	}
	_, err := y.dec.Token() // the closing brace
	return err
}

func (y *yamlWriter) list(indent int, at position) error {
	if !y.dec.More() {
		return y.empty("[]", at)
	}
	if at == afterKey {
		y.out.WriteByte('\n')
	}
	for first := true; y.dec.More(); first = false {
		if !first || at != afterDash {
			y.out.WriteString(strings.Repeat("  ", indent))
		}
		y.out.WriteString("- ")
		if err := y.value(indent+1, afterDash); err != nil {
			return err
		}
	}
	_, err := y.dec.Token() // the closing bracket
	return err
}

func (y *yamlWriter) empty(text string, at position) error {
	if at == afterKey {
		y.out.WriteByte(' ')
	}
	y.out.WriteString(text + "\n")
	_, err := y.dec.Token()
	return err
}

func scalar(token any) string {
	switch t := token.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(t)
	case json.Number:
		return t.String()
	case string:
		if plainWord(t) {
			return t
		}
		quoted, _ := json.Marshal(t) // a JSON string is a YAML string
		return string(quoted)
	}
	return fmt.Sprint(token)
}

// plainWord says whether a string stays a string in YAML without quotes. Everything that might be
// read as a number, a date, a boolean or syntax is quoted.
func plainWord(s string) bool {
	switch strings.ToLower(s) {
	case "", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf":
		return false
	}
	return regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./ -]*$`).MatchString(s) && !strings.HasSuffix(s, " ")
}
