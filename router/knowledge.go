package router

// Source is what NewKnowledge wants to know of one database, as plain rows of its catalogue. All
// schemas count, pg_catalog and information_schema included: the set of built-in functions
// differs between server versions. The columns, in terms of PostgreSQL's catalogue (15):
//
//	Functions  one row per pg_proc row of prokind f, a, w (procedures can only be CALLed), see Function
//	Relations  one row per pg_class row of relkind r, p, v, m, f, S (indexes, composite and TOAST
//	           relations cannot be named in FROM, or need not be), see Relation
//	Inherits   pg_inherits: inhparent, inhrelid, both relations and partitions
//	Operators  one row per distinct pg_operator.oprname for which some row's oprcode is volatile
//	           (p.provolatile = 'v'); an ordinary database has none
//	Casts      pg_cast rows whose castfunc is volatile; an ordinary database has none. See Cast
//	Types      pg_type rows that can run a function of the user when a value is made: all of
//	           typtype 'd' (domains), and base types whose typinput is volatile. See Type
//	Policies   pg_policy rows for SELECT or ALL (polcmd 'r', '*') with a polqual
//
// Names are as in the catalogue (not quoted). The strings may share memory; NewKnowledge copies
// what it keeps.
type Source struct {
	Functions []Function
	Relations []Relation
	Inherits  []Inherit
	Operators []string
	Casts     []Cast
	Types     []Type
	Policies  []Policy
}

// Function is one row of pg_proc.
type Function struct {
	// Schema is pg_namespace.nspname of pronamespace.
	Schema string
	// Name is proname.
	Name string
	// Volatile is provolatile = 'v'; for an aggregate (prokind 'a') also true when one of its
	// support functions is volatile: pg_aggregate.aggtransfn, aggfinalfn, aggcombinefn,
	// aggserialfn, aggdeserialfn, aggmtransfn, aggminvtransfn, aggmfinalfn (an aggregate's own
	// provolatile is always 'i').
	Volatile bool
	// ActsOutside: the function could reach out of the database behind the server's back, so it is
	// never run on a standby nor run twice, whatever its volatility says. True when its language is
	// neither trusted nor internal nor c (NOT l.lanpltrusted AND l.lanname NOT IN ('internal','c')),
	// or when it is SECURITY DEFINER and its owner is a superuser (p.prosecdef AND o.rolsuper, o =
	// pg_roles of proowner) and its language is not internal or c.
	ActsOutside bool
	// Extension is pg_extension.extname when the function belongs to one (pg_depend with classid =
	// 'pg_proc', objid = the function, deptype 'e', refclassid 'pg_extension'), "" otherwise.
	Extension string
	// OneArgument: it can be called with one argument, so that "x.name" may mean name(x):
	// pronargs - pronargdefaults <= 1 AND pronargs >= 1.
	OneArgument bool
	// Defaults is pg_get_expr(proargdefaults, 0), "" when it has none: a default may call nextval.
	Defaults string
}

// RelationKind is pg_class.relkind: 'r', 'p', 'v', 'm', 'f' or 'S'.
type RelationKind byte

// Relation is one row of pg_class.
type Relation struct {
	// OID is pg_class.oid; Inherit and Policy refer to it.
	OID uint32
	// Schema and Name are nspname and relname.
	Schema, Name string
	// Kind is relkind.
	Kind RelationKind
	// Persistence is relpersistence: 'p' permanent, 'u' unlogged, 't' temporary (leave out
	// temporary relations of other sessions: all of them).
	Persistence byte
	// Definition is pg_get_viewdef(oid) of a view (relkind v), "" for all others. The classifier
	// reads it, so that a view counts as what it selects.
	Definition string
}

// Inherit is one row of pg_inherits.
type Inherit struct{ Parent, Child uint32 }

// Cast is one row of pg_cast with a volatile castfunc.
type Cast struct {
	// Target is typname of casttarget.
	Target string
	// Source is typname of castsource, "" when that type is built in (oid < 16384).
	Source string
	// Implicit is castcontext = 'i': it can happen in a query without being written ('a' only
	// happens when something is stored).
	Implicit bool
	// Users are, for an implicit cast, the names of what can bring the two types into a query that
	// names neither: relname of relations with a column, and proname of functions with an argument
	// or the result, and oprname of operators with an operand, of type castsource or casttarget —
	// each of the two only if it is not built in.
	// While Users is nil nothing is known of them, and every query of the database is in doubt.
	Users []string
}

// Type is a type whose values cannot be made without running code that someone wrote.
type Type struct {
	// Name is typname.
	Name string
	// Base is typname of typbasetype for a domain, "" otherwise.
	Base string
	// Check is the text of its CHECKs, joined by " AND " when there are several:
	// pg_get_expr(conbin, 0) of pg_constraint rows with contypid = the type. "" when none.
	Check string
	// VolatileInput is true when the function typinput is volatile.
	VolatileInput bool
}

// Policy is one row of pg_policy.
type Policy struct {
	// Relation is polrelid.
	Relation uint32
	// Using is pg_get_expr(polqual, polrelid).
	Using string
}
