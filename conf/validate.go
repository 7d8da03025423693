package conf

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/cstproxy/cstproxy/ha/member"
	"github.com/cstproxy/cstproxy/proxy/auth"
)

// validate asks every package whether it can obey its part. A package reports with errors.Join, and
// its sentences start with the key they are about; that is how they get a line.
func (d *decoder) validate(c *Config, mounts []mount) {
	for _, m := range mounts {
		if v, ok := m.value.Addr().Interface().(interface{ Validate() error }); ok {
			for _, err := range flatten(v.Validate()) {
				d.invalid(d.pathOf(m.path, err.Error(), c), err.Error())
			}
		}
		switch m.path {
		case "hba":
			d.validateRules(c)
		case "cluster":
			d.validateClusters(c)
		case "fleet":
			for _, err := range flatten(member.Check(c.Fleet, c.HA)) {
				d.invalid(d.pathOf("ha", err.Error(), c), err.Error())
			}
		}
	}
}

func (d *decoder) invalid(path, text string) {
	if from := d.origins[path]; from.Kind == FromEnvironment {
		d.problems = append(d.problems, Problem{File: "environment", Text: from.Where + ": " + text})
		return
	}
	d.problem(path, "%s", text)
}

// validateClusters checks what concerns the clusters and another package as well.
func (d *decoder) validateClusters(c *Config) {
	if len(c.HA.Clusters) == 0 {
		d.invalid("", "there is no cluster: add a section [[cluster]] with a name, and below it one [[cluster.node]] per server")
	}
	for i, l := range c.Proxy.Listeners {
		if l.Cluster != "" && clusterPath(c, l.Cluster) == "cluster" {
			d.invalid(join(element("listen", i), "cluster"), fmt.Sprintf("listen %d: there is no cluster %q", i+1, l.Cluster))
		}
	}
}

// validateRules checks the rules one by one, since as a whole they stop at the first bad one.
func (d *decoder) validateRules(c *Config) {
	for i, r := range c.HBA {
		if _, err := auth.ParseRules([]auth.Rule{r}); err != nil {
			text := err.Error()
			if cause := errors.Unwrap(err); cause != nil {
				text = cause.Error() // without "rule 1", which counts within this one
			}
			d.invalid(d.pathOf(element("hba", i), text, c), "hba "+strconv.Itoa(i+1)+": "+text)
		}
	}
}

// flatten takes joined errors apart; an error that wraps a joined one in a sentence stays whole.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // the outermost is meant
	if !ok {
		if err == nil {
			return nil
		}
		return []error{err}
	}
	var list []error
	for _, e := range joined.Unwrap() {
		list = append(list, flatten(e)...)
	}
	return list
}

// pathOf finds the key that a sentence is about, by what it starts with: "listen: …" or "max_lag
// 5s …" in the section, "pool 2: pool_size …" for the second [[pool]], "cluster "a": node 3: port …"
// for tables that have a name or an id. Where it finds no key it stays at the table.
func (d *decoder) pathOf(section, text string, c *Config) string {
	path := section
	part := regexp.MustCompile(`^([a-z_]+)(?: "([^"]*)"| ([0-9]+))?: `)
	for {
		m := part.FindStringSubmatch(text)
		if m == nil {
			break
		}
		switch name := m[1]; {
		case name == "cluster":
			path = clusterPath(c, m[2])
		case name == "node":
			path = nodePath(c, path, m[3])
		case m[3] != "":
			n, _ := strconv.Atoi(m[3])
			if d.lines[element(name, n-1)] == 0 {
				name = join(path, name) // [[routing.rule]] stands below its section, [[pool]] does not
			}
			path = element(name, n-1)
		case name != section:
			return d.written(path, name)
		}
		text = text[len(m[0]):]
	}
	word, _, _ := strings.Cut(text, " ")
	return d.written(path, strings.TrimSuffix(word, ":"))
}

// written is the key in the table when the file or the environment has it, else the table.
func (d *decoder) written(path, key string) string {
	if _, line := d.lines[join(path, key)]; line {
		return join(path, key)
	}
	if _, set := d.origins[join(path, key)]; set {
		return join(path, key)
	}
	return path
}

func clusterPath(c *Config, name string) string {
	for i := len(c.HA.Clusters) - 1; i >= 0; i-- { // of two with one name the second is the mistake
		if c.HA.Clusters[i].Name == name {
			return element("cluster", i)
		}
	}
	return "cluster"
}

func nodePath(c *Config, cluster, id string) string {
	for i := range c.HA.Clusters {
		for j, n := range c.HA.Clusters[i].Nodes {
			if element("cluster", i) == cluster && strconv.Itoa(n.ID) == id {
				return element(join(cluster, "node"), j)
			}
		}
	}
	return cluster
}
