package conf

import (
	"errors"
	"strings"
)

// validate asks every package whether it can obey its part. A package reports with errors.Join, and
// its sentences start with the key they are about; that is how they get a line.
func (d *decoder) validate(c *Config) {
	for _, m := range c.mounts() {
		if v, ok := m.value.Interface().(interface{ Validate() error }); ok {
			for _, err := range flatten(v.Validate()) {
				text := err.Error()
				path := d.pathOf(m.path, text)
				if where := c.origins[path]; where.Kind == FromEnvironment {
					d.problems = append(d.problems, Problem{File: "environment", Text: where.Where + ": " + text})
					continue
				}
				d.problem(path, "%s", text)
			}
		}
	}
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) || len(joined.Unwrap()) == 0 {
		return []error{err}
	}
	if _, outermost := err.(interface{ Unwrap() []error }); !outermost {
		return []error{err} // wrapped in a sentence of its own
	}
	var list []error
	for _, e := range joined.Unwrap() {
		list = append(list, flatten(e)...)
	}
	return list
}

// pathOf finds the key that a sentence starts with: "listen: …" or "max_lag 5s …" in section.
func (d *decoder) pathOf(section, text string) string {
	word := text
	if i := strings.IndexAny(text, ": \t"); i > 0 {
		word = text[:i]
	}
	path := join(section, strings.TrimSuffix(word, ":"))
	if _, written := d.lines[path]; written {
		return path
	}
	if _, set := d.origins[path]; set {
		return path
	}
	return section
}
