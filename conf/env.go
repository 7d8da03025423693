package conf

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

const (
	envPrefix = "CSTPROXY_"
	// envToken is the variable in which cstlb takes its token; its start scripts go on working.
	envToken = "CSTLB_TOKEN"
	// EnvFile names the configuration file when no -f is given. It is no key and overrides none.
	EnvFile = "CSTPROXY_CONFIG"
)

// leaf is one value that is no table, with its place: path by position, key by name.
type leaf struct {
	path, key string
	value     reflect.Value
}

// environment applies CSTPROXY_<SECTION>_<KEY>, CSTPROXY_…_FILE for secrets, and CSTLB_TOKEN.
// Lists of tables (nodes, rules) have no variables: an index in a name would be too brittle.
func (d *decoder) environment(environ []string, mounts []mount) {
	known := map[string]leaf{}
	for _, m := range mounts {
		if isTable(m.value.Type()) {
			collectVariables(m.path, m.value, known)
		}
	}
	for _, path := range d.hidden {
		delete(known, variable(path))
	}
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		switch {
		case name == envToken:
			if l, ok := known[variable("admin.token")]; ok && text != "" && !environHas(environ, variable("admin.token")) {
				d.fromVariable(name, text, l)
			}
		case !strings.HasPrefix(name, envPrefix) || name == EnvFile:
		default:
			d.variable(name, text, known)
		}
	}
}

func (d *decoder) variable(name, text string, known map[string]leaf) {
	if l, ok := known[name]; ok {
		d.fromVariable(name, text, l)
		return
	}
	if base, isFile := strings.CutSuffix(name, "_FILE"); isFile {
		if l, ok := known[base]; ok && isSecret(l.path) {
			secret, err := ReadSecret(text)
			if err != nil {
				d.problems = append(d.problems, Problem{File: "environment", Text: fmt.Sprintf("%s: %v", name, err)})
				return
			}
			d.fromVariable(name, secret, l)
			return
		}
	}
	if isServiceLink(name) || !d.ofSection(name) {
		return
	}
	names := make([]string, 0, len(known))
	for n := range known {
		names = append(names, n)
	}
	d.problems = append(d.problems, Problem{File: "environment",
		Text: fmt.Sprintf("unknown variable %s; the nearest known one is %s", name, nearest(name, sortedCopy(names)))})
}

func (d *decoder) fromVariable(name, text string, l leaf) {
	value := fromEnvironment(text, l.value.Type())
	if l.value.Kind() == reflect.Slice && !implementsText(l.value) {
		before := len(d.problems)
		d.assign(l.path, value, l.value)
		for i := before; i < len(d.problems); i++ {
			d.problems[i] = Problem{File: "environment", Text: name + ": " + d.problems[i].Text}
		}
	} else if err := setScalar(lastKey(l.path), value, l.value); err != nil {
		d.problems = append(d.problems, Problem{File: "environment", Text: fmt.Sprintf("%s: %v", name, err)})
		return
	}
	d.origins[l.path] = Origin{Kind: FromEnvironment, Where: name}
}

// ofSection says whether a variable's name starts like a section of ours, so that a typing mistake
// is told from another program's variable.
func (d *decoder) ofSection(name string) bool {
	for section := range d.sections {
		if strings.HasPrefix(name, variable(section)+"_") {
			return true
		}
	}
	return false
}

// isServiceLink recognises the variables that Kubernetes sets for each service in a namespace:
// a service named cstproxy-admin gives CSTPROXY_ADMIN_SERVICE_HOST and CSTPROXY_ADMIN_PORT_8082_TCP.
func isServiceLink(name string) bool {
	return regexp.MustCompile(`_SERVICE_(HOST|PORT)(_|$)|_PORT$|_PORT_[0-9]+_(TCP|UDP)`).MatchString(name)
}

func collectVariables(path string, v reflect.Value, known map[string]leaf) {
	for _, f := range fields(v) {
		p := join(path, f.name)
		switch {
		case isTable(f.value.Type()):
			collectVariables(p, f.value, known)
		case f.value.Kind() == reflect.Slice && isTable(f.value.Type().Elem()):
		case f.value.Kind() == reflect.Map || f.value.Kind() == reflect.Pointer:
		default:
			known[variable(p)] = leaf{path: p, key: p, value: f.value}
		}
	}
}

// variable is the name of the variable that overrides a key.
func variable(path string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

func environHas(environ []string, name string) bool {
	for _, entry := range environ {
		if strings.HasPrefix(entry, name+"=") {
			return true
		}
	}
	return false
}

// isSecret says whether a key's value must not be shown.
func isSecret(path string) bool {
	switch name := lastKey(path); {
	case name == "token", name == "password", name == "secret":
		return true
	default:
		return strings.HasSuffix(name, "_token") || strings.HasSuffix(name, "_password") || strings.HasSuffix(name, "_secret")
	}
}
