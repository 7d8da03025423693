package conf

import (
	"testing"

	"github.com/BurntSushi/toml"
)

func TestLinesAreFoundInEveryShapeOfToml(t *testing.T) {
	text := `# comment = 1
a = 1
"quoted key" = 'x' # after
b.c = [ 1,
  2, # two
  { d = 3,
    e = 4 } ]
s = """
not = "a key"
"""""
l = '''
[not.a.table]'''
[t]
x = "\"#"
[[arr]]
y = 1
[arr.sub]
z = 2
[[arr]]
y = 3
[[arr.list]]
k = 1
[[arr.list]]
k = { inner = [ 1, 2 ] }
`
	if _, err := toml.Decode(text, &map[string]any{}); err != nil {
		t.Fatalf("the test's text is not TOML: %v", err)
	}
	index := indexLines(text)
	for path, want := range map[string]int{
		"a": 2, "quoted key": 3, "b.c": 4, "b.c[1]": 5, "b.c[2].d": 6, "b.c[2].e": 7, "s": 8, "l": 11, "t": 13, "t.x": 14,
		"arr[0]": 15, "arr[0].y": 16, "arr[0].sub": 17, "arr[0].sub.z": 18, "arr[1]": 19, "arr[1].y": 20,
		"arr[1].list[0].k": 22, "arr[1].list[1]": 23, "arr[1].list[1].k.inner": 24,
	} {
		if index[path] != want {
			t.Errorf("%s is on line %d, want %d", path, index[path], want)
		}
	}
	for _, absent := range []string{"not", "not.a.table", "comment"} {
		if index[absent] != 0 {
			t.Errorf("%q was found on line %d", absent, index[absent])
		}
	}
}

func TestTheNearestKeyIsTheOneThatWasMeant(t *testing.T) {
	keys := []string{"listen", "pool_size", "pool_mode", "wait_timeout", "max_clients"}
	for word, want := range map[string]string{
		"lsiten": "listen", "listen_addr": "listen", "poolsize": "pool_size", "max_client": "max_clients", "waittimeout": "wait_timeout",
	} {
		if got := nearest(word, keys); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

// FuzzParse feeds files: whatever they hold, they are read or refused, and every problem has a
// line that exists.
func FuzzParse(f *testing.F) {
	// Short seeds: the fuzzer shortens what it finds interesting, and a long one takes a minute each.
	f.Add(minimal)
	f.Add("[proxy]\npool_size=1\nwait_timeout=\"1s\"\n")
	f.Add("[[hba]]\ntype='host'\n[[pool]]\n[admin]\ntoken=\"\"")
	f.Add("[[cluster]]\nname='a'\n[[cluster.node]]\nid=1\ntags={zone=\"\"}\n")
	f.Add("[[a.b]]\nc=[[1],{d=\"\"\"x\"\"\"}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		indexLines(text)
		_, err := Parse("f.toml", text, nil)
		problems, _ := err.(Problems)
		for _, p := range problems {
			if p.Text == "" {
				t.Errorf("a problem without words: %+v", p)
			}
		}
	})
}
