package conf

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"
)

// mount says where one package's configuration stands in the file.
type mount struct {
	path  string
	value reflect.Value // addressable
	// hidden are keys of the value that stand elsewhere in the file.
	hidden []string
}

// field is one key of a table.
type field struct {
	name  string
	value reflect.Value
}

// fields are the configurable fields of a struct: exported, with a toml name. Embedded structs
// count as if their fields stood in the outer one.
func fields(v reflect.Value) []field {
	var list []field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case name != "":
			list = append(list, field{name, v.Field(i)})
		case f.Anonymous && f.Type.Kind() == reflect.Struct:
			list = append(list, fields(v.Field(i))...)
		}
	}
	return list
}

// isTable says whether a value of this type is written as a table of keys.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != reflect.TypeFor[time.Time]() &&
		!reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// decoder writes the decoded file into the packages' Config values and collects what is wrong. It
// goes on after a problem, so that an operator sees all of them at once.
type decoder struct {
	file     string
	lines    lineIndex
	problems Problems
	origins  map[string]Origin
	// elements are the defaults of the elements of an array of tables, by their type.
	elements map[reflect.Type]reflect.Value
	// sections are all keys of all mounts, to say where a misplaced key belongs.
	sections map[string][]string
	// hidden are the keys of sections that are no keys of the file.
	hidden []string
}

func (d *decoder) problem(path, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.file, Line: d.lines.at(path), Text: fmt.Sprintf(format, args...)})
}

// root distributes the top-level tables over the mounts.
func (d *decoder) root(doc map[string]any, mounts []mount) {
	names := make([]string, len(mounts))
	for i, m := range mounts {
		names[i] = m.path
	}
	for _, key := range sortedKeys(doc) {
		i := indexOf(names, key)
		if i < 0 {
			if home := d.homeOf(key, ""); home != "" {
				d.problem(key, "unknown section %q; a key of this name %s", key, home)
			} else {
				d.problem(key, "unknown section %q; the nearest known section is %q", key, nearest(key, names))
			}
			continue
		}
		d.assign(key, doc[key], mounts[i].value)
	}
}

// assign writes in, which stands at path, to out.
func (d *decoder) assign(path string, in any, out reflect.Value) {
	switch {
	case out.Kind() == reflect.Pointer:
		if out.IsNil() {
			out.Set(reflect.New(out.Type().Elem()))
		}
		d.assign(path, in, out.Elem())
	case isTable(out.Type()):
		d.table(path, in, out)
	case out.Kind() == reflect.Map:
		d.mapping(path, in, out)
	case out.Kind() == reflect.Slice && !implementsText(out):
		d.array(path, in, out)
	default:
		if err := setScalar(lastKey(path), in, out); err != nil {
			d.problem(path, "%s: %v", lastKey(path), err)
			return
		}
		d.origins[path] = d.here(path)
	}
}

func (d *decoder) here(path string) Origin {
	return Origin{Kind: FromFile, Where: fmt.Sprintf("%s:%d", d.file, d.lines.at(path))}
}

func (d *decoder) table(path string, in any, out reflect.Value) {
	table, ok := in.(map[string]any)
	if !ok {
		d.problem(path, "%s is a table: write [%s] and its keys below", lastKey(path), sectionName(path))
		return
	}
	known := slices.DeleteFunc(fields(out), func(f field) bool {
		return indexOf(d.hidden, join(sectionName(path), f.name)) >= 0
	})
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name
	}
	for _, key := range sortedKeys(table) {
		i := indexOf(names, key)
		if i >= 0 {
			d.assign(join(path, key), table[key], known[i].value)
			continue
		}
		where := "[" + sectionName(path) + "]"
		if home := d.homeOf(key, sectionName(path)); home != "" {
			d.problem(join(path, key), "unknown key %q in %s; it %s", key, where, home)
			continue
		}
		d.problem(join(path, key), "unknown key %q in %s; the nearest known key is %q", key, where, nearest(key, names))
	}
}

// homeOf says in which other section a key of exactly this name exists.
func (d *decoder) homeOf(key, except string) string {
	var homes []string
	if _, isSection := d.sections[key]; isSection {
		return "is a section of its own: [" + key + "]"
	}
	for section, keys := range d.sections {
		if section != except && indexOf(keys, key) >= 0 {
			homes = append(homes, "["+section+"]")
		}
	}
	sort.Strings(homes)
	if len(homes) == 0 || len(homes) > 2 {
		return "" // a name that many sections have says nothing
	}
	return "belongs in " + strings.Join(homes, " or ")
}

func (d *decoder) array(path string, in any, out reflect.Value) {
	items := listOf(in)
	if items == nil {
		if isTable(out.Type().Elem()) {
			d.problem(path, "%s is a list of tables: write [[%s]]", lastKey(path), sectionName(path))
		} else {
			d.problem(path, "%s: %s is not a list; write [ … ]", lastKey(path), quote(in))
		}
		return
	}
	list := reflect.MakeSlice(out.Type(), len(items), len(items))
	for i, item := range items {
		if preset, ok := d.elements[out.Type().Elem()]; ok {
			list.Index(i).Set(preset)
		}
		d.assign(element(path, i), item, list.Index(i))
	}
	out.Set(list)
	d.origins[path] = d.here(path)
}

func (d *decoder) mapping(path string, in any, out reflect.Value) {
	table, ok := in.(map[string]any)
	if !ok || out.Type().Key().Kind() != reflect.String {
		d.problem(path, "%s is a table: write [%s] and its keys below", lastKey(path), sectionName(path))
		return
	}
	m := reflect.MakeMapWithSize(out.Type(), len(table))
	for _, key := range sortedKeys(table) {
		value := reflect.New(out.Type().Elem()).Elem()
		if preset, ok := d.elements[out.Type().Elem()]; ok {
			value.Set(preset)
		}
		d.assign(join(path, key), table[key], value)
		m.SetMapIndex(reflect.ValueOf(key).Convert(out.Type().Key()), value)
	}
	out.Set(m)
}

// listOf accepts both forms in which the TOML library gives an array; nil when in is none.
func listOf(in any) []any {
	switch list := in.(type) {
	case []any:
		return append([]any{}, list...)
	case []map[string]any:
		items := make([]any, len(list))
		for i := range list {
			items[i] = list[i]
		}
		return items
	}
	return nil
}

func implementsText(v reflect.Value) bool {
	return reflect.PointerTo(v.Type()).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// sectionName is a path without the indexes: cluster[0].node[2] -> cluster.node.
func sectionName(path string) string {
	var b strings.Builder
	for path != "" {
		head, tail, found := strings.Cut(path, "[")
		b.WriteString(head)
		if !found {
			break
		}
		_, path, _ = strings.Cut(tail, "]")
	}
	return b.String()
}

// lastKey is the key that a path ends in, without an index.
func lastKey(path string) string {
	name := sectionName(path)
	return name[strings.LastIndexByte(name, '.')+1:]
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func indexOf(list []string, s string) int {
	for i := range list {
		if list[i] == s {
			return i
		}
	}
	return -1
}
