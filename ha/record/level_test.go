package record

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestEveryFieldHasALevel compares what entries and snapshots are made of with what a build of this Level
// reads: it ends on a field that it does not know. Whoever adds one raises Level, has the leader propose nothing
// that brings it about before every member has reached that (fleet.readableAt), and renames the list.
func TestEveryFieldHasALevel(t *testing.T) {
	var got []string
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(of reflect.Type) {
		switch of.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(of.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[of] {
			return
		}
		seen[of] = true
		for i := range of.NumField() {
			field := of.Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "-" || !field.IsExported() {
				continue
			}
			got = append(got, fmt.Sprintf("%s.%s", of.Name(), field.Name+" "+name))
			walk(field.Type)
		}
	}
	walk(reflect.TypeFor[State]())
	walk(reflect.TypeFor[Entry]())
	slices.Sort(got)
	list := fmt.Sprintf("testdata/level-%d.txt", Level)
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Split(strings.TrimSpace(string(text)), "\n"); !slices.Equal(got, want) {
		t.Errorf("%s does not list these fields:\n%s", list, strings.Join(got, "\n"))
	}
}
