package router

import (
	_ "embed"
	"strings"
	"sync"
)

//go:generate sh builtin15.sh

// builtin15 is pg_proc of PostgreSQL 15's pg_catalog, one name a line: "name flags", v for a name
// with a volatile overload, 1 for one that can be called with a single argument; and the system
// views as "name view" or "name local".
//
//go:embed builtin15.txt
var builtin15 string

// builtins is what is known without a catalogue.
var builtins = sync.OnceValue(func() *Knowledge {
	var src Source
	var local []string
	for line := range strings.Lines(builtin15) {
		name, what, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch what {
		case "local":
			local = append(local, name)
		default:
			src.Functions = append(src.Functions, Function{
				Schema: "pg_catalog", Name: name,
				Volatile: strings.Contains(what, "v"), OneArgument: strings.Contains(what, "1"),
			})
		}
	}
	k := collect(&src)
	k.offline = true
	for _, name := range local {
		k.relations[name] = isLocal
	}
	return k
})
