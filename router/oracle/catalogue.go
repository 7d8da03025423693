package oracle

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Catalogue is what the names of one database mean. Functions are known by bare name, the worst
// overload counting; views by the functions and relations (their oids) in the server's own parse
// tree of them.
type Catalogue struct {
	functions  map[string][]Reason
	attributes map[string][]Reason
	relations  map[string][]Reason
	partial    bool // other relations than these are ordinary tables
	operators  map[string][]Reason
	types      map[string][]Reason
	named      map[string]bool // names of types, which a call may cast to
	columns    map[string]bool
}

// call is what a call does; with one argument it may be a cast in the notation of functions.
func (c *Catalogue) call(name string, arguments int) []Reason {
	if r, ok := c.functions[name]; ok {
		return r
	}
	if arguments == 1 && c.named[name] {
		return nil
	}
	return []Reason{{Unknown, "function " + name}}
}

func (c *Catalogue) attribute(name string) []Reason {
	if c.columns[name] {
		return nil
	}
	return c.attributes[name]
}

func (c *Catalogue) relation(name string) []Reason {
	if r, ok := c.relations[name]; ok || c.partial {
		return r
	}
	return []Reason{{Unknown, "relation " + name}}
}

func (c *Catalogue) typeOf(name string) []Reason   { return c.types[name] }
func (c *Catalogue) operator(name string) []Reason { return c.operators[name] }

// Partial is the catalogue of a fresh database, taken for what is known of another one.
func (c *Catalogue) Partial() *Catalogue {
	p := *c
	p.partial = true
	return &p
}

// Read asks a server for its catalogue.
func Read(ctx context.Context, url string) (*Catalogue, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	r := &reading{ctx: ctx, conn: conn, byOID: map[string][]Reason{}, bad: map[string][]Reason{}, c: &Catalogue{
		functions: map[string][]Reason{}, attributes: map[string][]Reason{}, relations: map[string][]Reason{},
		operators: map[string][]Reason{}, types: map[string][]Reason{}, named: map[string]bool{}, columns: map[string]bool{},
	}}
	r.readFunctions()
	r.readRelations()
	r.readTypes()
	return r.c, r.err
}

// reading collects a catalogue; the first error ends it.
type reading struct {
	ctx   context.Context
	conn  *pgx.Conn
	c     *Catalogue
	byOID map[string][]Reason // what a function does
	bad   map[string][]Reason // what reading a relation does
	err   error
}

func (r *reading) each(sql string, take func(v []string)) {
	if r.err != nil {
		return
	}
	rows, err := r.conn.Query(r.ctx, sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		r.err = fmt.Errorf("read the catalogue: %w", err)
		return
	}
	defer rows.Close()
	for rows.Next() {
		var v []string
		for _, b := range rows.RawValues() {
			v = append(v, string(b))
		}
		take(v)
	}
	if err := rows.Err(); err != nil {
		r.err = fmt.Errorf("read the catalogue: %w", err)
	}
}

func (r *reading) readFunctions() {
	// an aggregate is as volatile as the functions that it is made of
	r.each(`SELECT p.oid, p.proname, p.pronamespace = 'pg_catalog'::regnamespace,
			p.provolatile = 'v' OR EXISTS (SELECT 1 FROM pg_aggregate a JOIN pg_proc f ON f.oid IN (a.aggtransfn, a.aggfinalfn,
				a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
				WHERE a.aggfnoid = p.oid AND f.provolatile = 'v'),
			p.pronargs >= 1 AND p.pronargs - p.pronargdefaults <= 1,
			NOT l.lanpltrusted AND l.lanname NOT IN ('internal', 'c') OR p.prosecdef AND o.rolsuper AND l.lanname NOT IN ('internal', 'c'),
			coalesce(pg_get_expr(p.proargdefaults, 0), '')
		FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_roles o ON o.oid = p.proowner WHERE p.prokind <> 'p'`, func(v []string) {
		oid, name, builtin, volatile := v[0], v[1], v[2] == "t", v[3] == "t"
		var why []Reason
		switch {
		case builtin && isLocal(name):
			why = []Reason{{Local, "function " + name}}
		case builtin && name == "set_config":
			why = []Reason{{Session, "set_config"}}
		case volatile && !(builtin && (harmless[name] || internal[name])):
			why = []Reason{{Writes, "volatile function " + name}}
		case v[5] == "t":
			why = []Reason{{Writes, "function acts outside: " + name}}
		case strings.Contains(v[6], "nextval"):
			why = []Reason{{Writes, "default of an argument of " + name}}
		}
		r.byOID[oid] = why
		r.c.functions[name] = append(r.c.functions[name], why...)
		if v[4] == "t" && why != nil {
			r.c.attributes[name] = append(r.c.attributes[name], why...)
		}
	})
	r.each(`SELECT DISTINCT o.oprname, o.oprcode::oid FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode WHERE p.provolatile = 'v'`,
		func(v []string) {
			r.c.operators[v[0]] = append(r.c.operators[v[0]], Reason{Writes, "volatile operator " + v[0]})
		})
	r.each(`SELECT DISTINCT attname FROM pg_attribute WHERE attnum > 0`, func(v []string) { r.c.columns[v[0]] = true })
}

// treeOID finds the functions and relations in pg_rewrite.ev_action and other node trees.
var treeOID = regexp.MustCompile(`:(funcid|opfuncid|aggfnoid|winfnoid|relid|wfuncid) (\d+)`)

// inTree is what a stored tree does.
func (r *reading) inTree(tree string) []Reason {
	var out []Reason
	for _, m := range treeOID.FindAllStringSubmatch(tree, -1) {
		if m[1] == "relid" {
			out = append(out, r.bad[m[2]]...)
		} else {
			out = append(out, r.byOID[m[2]]...)
		}
	}
	return out
}

func (r *reading) readRelations() {
	names := map[string]string{}
	r.each(`SELECT oid, relname, relkind, relpersistence FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 't', 'i', 'I', 'c')`, func(v []string) {
		oid, name := v[0], v[1]
		names[oid] = name
		switch {
		case v[2] == "S":
			r.bad[oid] = []Reason{{Local, "sequence " + name}}
		case v[2] == "f":
			r.bad[oid] = []Reason{{Writes, "foreign table " + name}}
		case v[3] == "u":
			r.bad[oid] = []Reason{{Writes, "unlogged table " + name}}
		case v[3] == "t":
			r.bad[oid] = []Reason{{Local, "temporary table " + name}}
		}
	})
	type dependence struct{ relation, tree string }
	var depends []dependence
	r.each(`SELECT ev_class, ev_action FROM pg_rewrite JOIN pg_class c ON c.oid = ev_class WHERE ev_type = '1' AND relkind = 'v'`, func(v []string) { depends = append(depends, dependence{v[0], v[1]}) })
	r.each(`SELECT polrelid, polqual FROM pg_policy WHERE polcmd IN ('r', '*') AND polqual IS NOT NULL`,
		func(v []string) { depends = append(depends, dependence{v[0], v[1]}) })
	r.each(`SELECT inhparent, ':relid ' || inhrelid FROM pg_inherits`, func(v []string) { depends = append(depends, dependence{v[0], v[1]}) })
	for changed := true; changed; { // views on views
		changed = false
		for _, d := range depends {
			if len(r.bad[d.relation]) > 0 {
				continue
			}
			if why := r.inTree(d.tree); len(why) > 0 {
				r.bad[d.relation] = why
				changed = true
			}
		}
	}
	for oid, name := range names {
		r.c.relations[name] = append(r.c.relations[name], r.bad[oid]...)
	}
}

func (r *reading) readTypes() {
	input := map[string][]Reason{}
	r.each(`SELECT t.typname, p.provolatile = 'v' FROM pg_type t LEFT JOIN pg_proc p ON p.oid = t.typinput`, func(v []string) {
		r.c.named[v[0]] = true
		if v[1] == "t" {
			input[v[0]] = []Reason{{Writes, "input function of type " + v[0]}}
		}
	})
	for name, why := range input {
		r.c.types[name] = append(r.c.types[name], why...)
	}
	r.each(`SELECT t.typname FROM pg_cast c JOIN pg_proc p ON p.oid = c.castfunc JOIN pg_type t ON t.oid = c.casttarget WHERE p.provolatile = 'v'`,
		func(v []string) {
			r.c.types[v[0]] = append(r.c.types[v[0]], Reason{Writes, "cast to " + v[0]})
		})
	// a domain is as bad as its checks and its base; PostgreSQL's domains over domains go deep
	bases := map[string]string{}
	r.each(`SELECT t.typname, b.typname FROM pg_type t JOIN pg_type b ON b.oid = t.typbasetype WHERE t.typtype = 'd'`,
		func(v []string) { bases[v[0]] = v[1] })
	r.each(`SELECT t.typname, k.conbin FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid WHERE k.conbin IS NOT NULL`, func(v []string) {
		if why := r.inTree(v[1]); len(why) > 0 {
			r.c.types[v[0]] = append(r.c.types[v[0]], why...)
		}
	})
	for range bases {
		for domain, base := range bases {
			if len(r.c.types[domain]) == 0 {
				r.c.types[domain] = r.c.types[base]
			}
		}
	}
}
