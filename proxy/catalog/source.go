package catalog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/router"
)

// sqlFingerprint is a text that differs when anything that the queries below return may have
// changed. A row's xmin changes with each update of it; vacuum keeps it. pg_class is summed up by
// content instead, because TRUNCATE and REFRESH rewrite its rows without a change that matters.
const sqlFingerprint = `
SELECT pg_catalog.current_setting('server_version_num')
UNION ALL SELECT 'class ' || count(*) || ' ' || coalesce(sum(pg_catalog.hashtextextended(content, 0)), 0)
	FROM (SELECT pg_catalog.concat_ws(' ', oid, relnamespace, relkind, relpersistence, relname) AS content
	FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relpersistence <> 't') c
UNION ALL SELECT 'proc ' || count(*) || ' ' || coalesce(sum(xmin::text::int8), 0) FROM pg_catalog.pg_proc
UNION ALL SELECT 'aggregate ' || count(*) || ' ' || coalesce(sum(xmin::text::int8), 0) FROM pg_catalog.pg_aggregate
UNION ALL SELECT 'language ' || count(*) || ' ' || coalesce(sum(xmin::text::int8), 0) FROM pg_catalog.pg_language
UNION ALL SELECT 'namespace ' || count(*) || ' ' || coalesce(sum(xmin::text::int8), 0) FROM pg_catalog.pg_namespace
	WHERE nspname NOT LIKE 'pg\_temp\_%' AND nspname NOT LIKE 'pg\_toast\_temp\_%'
UNION ALL SELECT 'rewrite ' || count(*) || ' ' || coalesce(sum(xmin::text::int8), 0) FROM pg_catalog.pg_rewrite
UNION ALL SELECT 'inherits ' || count(*) || ' ' || coalesce(sum(xmin::text::int8), 0) FROM pg_catalog.pg_inherits
UNION ALL SELECT 'operator ' || count(*) || ' ' || coalesce(sum(xmin::text::int8), 0) FROM pg_catalog.pg_operator
UNION ALL SELECT 'cast ' || count(*) || ' ' || coalesce(sum(xmin::text::int8), 0) FROM pg_catalog.pg_cast
UNION ALL SELECT 'type ' || count(*) || ' ' || coalesce(sum(xmin::text::int8), 0) FROM pg_catalog.pg_type
	WHERE typtype = 'd' OR typtype = 'b' AND typcategory <> 'A'
UNION ALL SELECT 'constraint ' || count(*) || ' ' || coalesce(sum(xmin::text::int8), 0) FROM pg_catalog.pg_constraint WHERE contypid <> 0
UNION ALL SELECT 'policy ' || count(*) || ' ' || coalesce(sum(xmin::text::int8), 0) FROM pg_catalog.pg_policy
UNION ALL SELECT 'superuser ' || count(*) || ' ' || coalesce(sum(oid::int8), 0) FROM pg_catalog.pg_roles WHERE rolsuper`

const sqlFunctions = `
SELECT n.nspname, p.proname,
	p.provolatile = 'v' OR p.prokind = 'a' AND EXISTS (
		SELECT 1 FROM pg_catalog.pg_aggregate a, pg_catalog.pg_proc f
		WHERE a.aggfnoid = p.oid AND f.provolatile = 'v' AND f.oid = ANY (ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn,
			a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]::pg_catalog.oid[])),
	NOT l.lanpltrusted AND l.lanname NOT IN ('internal', 'c')
		OR p.prosecdef AND coalesce(o.rolsuper, true) AND l.lanname NOT IN ('internal', 'c'),
	p.pronargs >= 1 AND p.pronargs - p.pronargdefaults <= 1,
	coalesce(pg_catalog.pg_get_expr(p.proargdefaults, 0), ''),
	coalesce((SELECT x.extname FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
		WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
		AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass LIMIT 1), '')
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
LEFT JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
WHERE p.prokind IN ('f', 'a', 'w')`

const sqlRelations = `
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence,
	CASE c.relkind WHEN 'v' THEN coalesce(pg_catalog.pg_get_viewdef(c.oid), '') ELSE '' END
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'`

const sqlInherits = `SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits`

const sqlOperators = `
SELECT DISTINCT o.oprname FROM pg_catalog.pg_operator o
JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode WHERE p.provolatile = 'v'`

// sqlCasts: types below 16384 (FirstNormalObjectId in transam.h) are built in.
const sqlCasts = `
SELECT c.oid, t.typname, CASE WHEN s.oid >= 16384 THEN s.typname ELSE '' END, c.castcontext = 'i', s.oid >= 16384 OR t.oid >= 16384
FROM pg_catalog.pg_cast c
JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc
JOIN pg_catalog.pg_type t ON t.oid = c.casttarget
JOIN pg_catalog.pg_type s ON s.oid = c.castsource
WHERE p.provolatile = 'v'`

// sqlCastUsers follows what depends on the two types of an implicit cast through arrays, domains,
// composite and row types to the functions, relations and operators that can bring them into a
// query. An operator whose name a built-in one has is left out: with built-in types that one is
// meant, and values of the others come from what is listed here.
const sqlCastUsers = `
WITH RECURSIVE used (oid, classid, objid) AS (
	SELECT c.oid, 'pg_catalog.pg_type'::pg_catalog.regclass::oid, t.oid
	FROM pg_catalog.pg_cast c
	JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc AND p.provolatile = 'v'
	JOIN pg_catalog.pg_type t ON t.oid IN (c.castsource, c.casttarget) AND t.oid >= 16384
	WHERE c.castcontext = 'i'
	UNION
	SELECT u.oid, d.classid, d.objid FROM used u
	JOIN pg_catalog.pg_depend d ON d.refclassid = u.classid AND d.refobjid = u.objid
	WHERE u.classid IN ('pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_class'::pg_catalog.regclass)
	AND d.classid IN ('pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_class'::pg_catalog.regclass,
		'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass))
SELECT u.oid, r.relname FROM used u JOIN pg_catalog.pg_class r ON r.oid = u.objid AND u.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
	WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION SELECT u.oid, f.proname FROM used u JOIN pg_catalog.pg_proc f ON f.oid = u.objid AND u.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
UNION SELECT u.oid, o.oprname FROM used u JOIN pg_catalog.pg_operator o ON o.oid = u.objid AND u.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass
	WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_operator b WHERE b.oprname = o.oprname AND b.oid < 16384)`

// sqlTypes has every domain, because one without a CHECK can have a base with one.
const sqlTypes = `
SELECT t.typname, coalesce(b.typname, ''),
	coalesce((SELECT pg_catalog.string_agg(pg_catalog.pg_get_expr(k.conbin, 0), ' AND ')
		FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'), ''),
	p.provolatile = 'v'
FROM pg_catalog.pg_type t
JOIN pg_catalog.pg_proc p ON p.oid = t.typinput
LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
WHERE t.typtype = 'd' OR t.typtype = 'b' AND p.provolatile = 'v'`

const sqlPolicies = `
SELECT polrelid, pg_catalog.pg_get_expr(polqual, polrelid) FROM pg_catalog.pg_policy
WHERE polcmd IN ('r', '*') AND polqual IS NOT NULL`

// before11 puts a statement into the words of PostgreSQL 10, which has no procedures, and no hash of
// a text that is longer than 32 bits: two of them make one of 64.
func before11(sql string) string {
	return strings.NewReplacer(
		"p.prokind = 'a'", "p.proisagg",
		"p.prokind IN ('f', 'a', 'w')", "true",
		"pg_catalog.hashtextextended(content, 0)",
		"(pg_catalog.hashtext(content)::int8 << 32) | (pg_catalog.hashtext('+' || content) & 4294967295)",
	).Replace(sql)
}

var errTooLarge = errors.New("it is larger than max_catalog_bytes")

// reader reads one database in one snapshot. The first error ends it; later calls do nothing.
type reader struct {
	ctx     context.Context
	conn    *side
	timeout time.Duration // of each query
	budget  int           // bytes that may still be read
	err     error
}

func (r *reader) begin() {
	r.each("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 0, nil)
}

// each runs a query whose rows have the given number of columns.
func (r *reader) each(sql string, columns int, take func(row [][]byte)) {
	if r.err != nil {
		return
	}
	if v, known := major(r.conn.ParameterStatus("server_version")); known && v < 11 {
		sql = before11(sql)
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.timeout)
	defer cancel()
	r.err = r.conn.rows(ctx, sql, nil, func(row [][]byte) error {
		if len(row) != columns {
			return fmt.Errorf("%d columns instead of %d", len(row), columns)
		}
		for _, v := range row {
			r.budget -= len(v) + 16
		}
		if r.budget < 0 {
			return errTooLarge
		}
		take(row)
		return nil
	})
	if r.err != nil {
		r.err = fmt.Errorf("read the catalogue: %w", r.err)
	}
}

func (r *reader) fingerprint() string {
	var parts []byte
	r.each(sqlFingerprint, 1, func(row [][]byte) { parts = append(append(parts, row[0]...), '\n') })
	return string(parts)
}

func (r *reader) source() router.Source {
	var s router.Source
	r.each(sqlFunctions, 7, func(v [][]byte) {
		s.Functions = append(s.Functions, router.Function{Schema: string(v[0]), Name: string(v[1]),
			Volatile: yes(v[2]), ActsOutside: yes(v[3]), OneArgument: yes(v[4]), Defaults: string(v[5]), Extension: string(v[6])})
	})
	r.each(sqlRelations, 6, func(v [][]byte) {
		s.Relations = append(s.Relations, router.Relation{OID: oid(v[0]), Schema: string(v[1]), Name: string(v[2]),
			Kind: router.RelationKind(letter(v[3])), Persistence: letter(v[4]), Definition: string(v[5])})
	})
	r.each(sqlInherits, 2, func(v [][]byte) {
		s.Inherits = append(s.Inherits, router.Inherit{Parent: oid(v[0]), Child: oid(v[1])})
	})
	r.each(sqlOperators, 1, func(v [][]byte) { s.Operators = append(s.Operators, string(v[0])) })
	r.casts(&s)
	r.each(sqlTypes, 4, func(v [][]byte) {
		s.Types = append(s.Types, router.Type{Name: string(v[0]), Base: string(v[1]), Check: string(v[2]), VolatileInput: yes(v[3])})
	})
	r.each(sqlPolicies, 2, func(v [][]byte) {
		s.Policies = append(s.Policies, router.Policy{Relation: oid(v[0]), Using: string(v[1])})
	})
	return s
}

// casts reads the casts that may write. Users stays nil when both types are built in.
func (r *reader) casts(s *router.Source) {
	at := map[string]int{}
	r.each(sqlCasts, 5, func(v [][]byte) {
		c := router.Cast{Target: string(v[1]), Source: string(v[2]), Implicit: yes(v[3])}
		if yes(v[4]) {
			c.Users = []string{}
		}
		at[string(v[0])] = len(s.Casts)
		s.Casts = append(s.Casts, c)
	})
	if len(s.Casts) == 0 {
		return // an ordinary database
	}
	r.each(sqlCastUsers, 2, func(v [][]byte) {
		if i, ok := at[string(v[0])]; ok {
			s.Casts[i].Users = append(s.Casts[i].Users, string(v[1]))
		}
	})
}

// yes reads a boolean; anything else, NULL included, is the careful answer.
func yes(v []byte) bool { return string(v) != "f" }

func letter(v []byte) byte {
	if len(v) != 1 {
		return 0
	}
	return v[0]
}

// oid reads an object identifier; 0, which no object has, for anything else.
func oid(v []byte) uint32 {
	n, err := strconv.ParseUint(string(v), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}
