package oracle

import (
	"slices"
	"testing"
)

func TestAScriptIsCutAsPsqlDoes(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"select 1; select 2;", []string{"select 1;", "select 2;"}},
		{"select 1\\; select 2;", []string{"select 1; select 2;"}},
		{"select ';' /* ; /* ; */ ; */, \";\" -- ;\n, $$;$$, $a$;$$;$a$;", []string{"select ';' /* ; /* ; */ ; */, \";\" -- ;\n, $$;$$, $a$;$$;$a$;"}},
		{`select E'\';', '\';`, []string{`select E'\';', '\';`}},
		{"set standard_conforming_strings = off; select '\\';'; set standard_conforming_strings = on; select '\\';",
			[]string{"set standard_conforming_strings = off;", `select '\';';`, "set standard_conforming_strings = on;", `select '\';`}},
		{"\\d t\nselect 1;\n\\set x 'y z'\nselect :'x', :x, :\"n\", a::int;", []string{"select 1;", "select 'y z', y z, \"n\", a::int;"}},
		{"select 1 \\gset\nselect 2\\g\nselect 3;", []string{"select 1", "select 2", "select 3;"}},
		{"copy t from stdin;\n1\tx;\n\\.\nselect 1;", []string{"copy t from stdin;", "select 1;"}},
		{"copy (select 1) to stdout; select 1;", []string{"copy (select 1) to stdout;", "select 1;"}},
		{"create rule r as on insert to t do (select 1; select 2); select 3;", []string{"create rule r as on insert to t do (select 1; select 2);", "select 3;"}},
		{"create function f() begin atomic select 1; select case when true then 1 end; end; select 3;",
			[]string{"create function f() begin atomic select 1; select case when true then 1 end; end;", "select 3;"}},
		{"begin; select 1; end;", []string{"begin;", "select 1;", "end;"}},
		{"\\if false \\\\ select 1; \\endif\nselect $1;", []string{"select 1;", "select $1;"}},
	} {
		var got []string
		for _, text := range Script(c.in) {
			got = append(got, text.SQL)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q:\n got %q\nwant %q", c.in, got, c.want)
		}
	}
}
