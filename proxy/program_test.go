package proxy

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

// program draws what a client may legally send, all at once: simple queries, pipelines with errors
// anywhere, COPY, prepared statements used rightly and wrongly, transactions that end or do not.
type program struct {
	t     *rapid.T
	table string
	// copied: the unnamed statement may be a COPY, which must not be run without data.
	copied bool
}

// drawProgram returns the turns of one client in notation. The last ones end any transaction.
func drawProgram(t *rapid.T, table string) []string {
	p := &program{t: t, table: table}
	var turns []string
	for range rapid.IntRange(1, 8).Draw(t, "turns") {
		turns = append(turns, p.turn())
		if p.copied {
			turns, p.copied = append(turns, `Query "select 3"`), false
		}
	}
	return append(turns, "Sync", `Query "rollback"`, fmt.Sprintf("Query %q", "select count(*) from "+table), `Query "show timezone; show application_name"`, `Query "discard all"`)
}

func (p *program) pick(label string, list ...string) string {
	return strings.ReplaceAll(rapid.SampledFrom(list).Draw(p.t, label), "TABLE", p.table)
}

func (p *program) text() string {
	return p.pick("text", "select 1", "select 2", "select count(*) from TABLE", "values (1),(2),(3)", "insert into TABLE values (1)",
		"insert into TABLE values (2)", "insert into TABLE values (0)", "select 1/0", "selec", "select * from nope", "begin", "begin", "commit",
		"rollback", "savepoint s", "rollback to s", "set timezone to 'Asia/Tokyo'", "set timezone to 'Europe/Rome'",
		"set local timezone to 'Asia/Tokyo'", "reset timezone", "show timezone", "set application_name to 'x'", "copy (select 1) to stdout",
		"deallocate a", "deallocate b", "deallocate all", "discard all", "")
}

func (p *program) turn() string {
	switch rapid.IntRange(0, 10).Draw(p.t, "kind") {
	case 0, 1, 2:
		return fmt.Sprintf("Query %q", p.text())
	case 3:
		var list []string
		for range rapid.IntRange(2, 3).Draw(p.t, "statements") {
			list = append(list, p.text())
		}
		return fmt.Sprintf("Query %q", strings.Join(list, "; "))
	case 4:
		return fmt.Sprintf("Query %q | ", p.pick("copy", "copy TABLE from stdin", "insert into TABLE values (3); copy TABLE from stdin; select 1")) + p.data()
	case 5:
		// What follows the end of a read only transaction in the same turn has to stay where that was.
		return fmt.Sprintf(`Query "begin read only" | Query %q | %s | Query %q`, p.pick("first", "select count(*) from TABLE", "insert into TABLE values (8)", "select * from nope"),
			p.pick("second", `Run "values (1),(2),(3)" | Sync`, `Bind "" "a" | Execute "" 0 | Sync`, `Run "set timezone to 'Asia/Tokyo'" | Sync`), p.pick("end", "commit", "rollback"))
	default:
		return p.group()
	}
}

// data is what follows COPY … FROM STDIN.
func (p *program) data() string {
	return p.pick("data", `CopyData "1\n" | CopyData "2\n3\n" | CopyDone`, `CopyData "x\n" | CopyData "1\n" | CopyDone`, `CopyDone`,
		`CopyFail "no"`, `CopyData "1\n" | CopyFail "no"`, `Flush | CopyData "1\n" | Flush | CopyDone`)
}

// group is a pipeline up to its Sync.
func (p *program) group() string {
	var units []string
	for range rapid.IntRange(0, 4).Draw(p.t, "units") {
		units = append(units, p.unit())
	}
	return strings.Join(append(units, "Sync"), " | ")
}

func (p *program) unit() string {
	name := p.pick("name", "a", "b", "c")
	switch rapid.IntRange(0, 11).Draw(p.t, "unit") {
	case 0, 1, 2:
		return fmt.Sprintf(`Run %q`, p.text())
	case 3:
		return fmt.Sprintf(`Parse %q %q`, name, p.text())
	case 4, 5:
		return fmt.Sprintf(`Bind "" %q | Execute "" 0`, name)
	case 6:
		return fmt.Sprintf(`Describe S %q`, p.pick("described", "a", "b", "c", ""))
	case 7:
		return fmt.Sprintf(`Close S %q`, p.pick("closed", "a", "b", "c", "", "nope"))
	case 8:
		return fmt.Sprintf(`Parse "" %q | Bind "p" "" | Execute "p" 2 | Execute "p" 2 | Close P "p"`, p.pick("rows", "values (1),(2),(3)", "select 1", "insert into TABLE values (4)"))
	case 9:
		return fmt.Sprintf(`Parse "" %q | Bind "" "" %q | Execute "" 0`, p.pick("parameter", "select $1", "insert into TABLE values ($1)"), p.pick("value", "1", "7"))
	case 10:
		if p.copied {
			return "Flush"
		}
		return `Bind "" "" | Execute "" 0 | Flush`
	default:
		p.copied = true
		between := p.pick("between", "", "", "Sync | ")
		return fmt.Sprintf(`Parse "" %q | Bind "" "" | Execute "" 0 | `, "copy "+p.table+" from stdin") + between + p.data()
	}
}
