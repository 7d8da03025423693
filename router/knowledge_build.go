package router

import (
	"slices"
	"strings"
	"weak"
)

type functionFlags uint8

const (
	writes functionFlags = 1 << iota
	nodeLocal
	actsOutside
	oneArgument
)

type relationFlags uint8

const (
	isSequence relationFlags = 1 << iota // a standby shows values that were logged in advance
	isUnlogged                           // does not exist on a standby
	isForeign
	isWriting // a view that may write
	isLocal   // shows what is true of one node or one connection
)

// Knowledge is what the classifier knows of one database's catalogue. Immutable, and may be used
// by any number of goroutines. Everything is by bare name: of two functions or relations with the
// same name in different schemas (or overloads) the worse counts.
type Knowledge struct {
	functions map[string]functionFlags
	fields    map[string]functionFlags // those with oneArgument that a read may not call
	relations map[string]relationFlags
	operators map[string]struct{}     // that may write
	types     map[string]string       // whose values may write when made: why
	offline   bool                    // relations are not known
	implicit  bool                    // some cast that nobody writes may write
	self      weak.Pointer[Knowledge] // for the decision cache, which must not keep it alive
}

// NewKnowledge works out what the rows of a catalogue mean for reads. It takes some milliseconds
// for an ordinary database; it is for the goroutine that read the catalogue.
func NewKnowledge(src Source) *Knowledge {
	k := collect(&src)
	k.settle(&src)
	return k
}

// collect is NewKnowledge without what depends on other things of the catalogue.
func collect(src *Source) *Knowledge {
	k := &Knowledge{
		functions: make(map[string]functionFlags, len(src.Functions)),
		fields:    map[string]functionFlags{},
		relations: make(map[string]relationFlags, len(src.Relations)),
		operators: map[string]struct{}{},
		types:     map[string]string{},
	}
	for i := range src.Functions {
		f := &src.Functions[i]
		k.functions[strings.Clone(f.Name)] |= flagsOf(f)
	}
	for i := range src.Relations {
		r := &src.Relations[i]
		k.relations[strings.Clone(r.Name)] |= relationFlagsOf(r)
	}
	for _, name := range src.Operators {
		k.operators[strings.Clone(name)] = struct{}{}
	}
	for _, c := range src.Casts {
		k.types[strings.Clone(c.Target)] = whyVolatileCast
		if c.Implicit {
			k.implicitCast(c)
		}
	}
	for _, t := range src.Types {
		if t.VolatileInput {
			k.types[strings.Clone(t.Name)] = whyVolatileType
		}
	}
	k.self = weak.Make(k)
	k.fill()
	return k
}

// implicitCast marks what may run a volatile cast without naming it.
func (k *Knowledge) implicitCast(c Cast) {
	k.implicit = k.implicit || c.Users == nil
	if c.Source != "" {
		k.types[strings.Clone(c.Source)] = whyVolatileCast
	}
	for _, name := range c.Users {
		if _, known := k.relations[name]; known {
			k.relations[name] |= isWriting
		}
		if _, known := k.functions[name]; known {
			k.functions[name] |= writes
		}
		if name != "" && classes[name[0]] == classOperator {
			k.operators[strings.Clone(name)] = struct{}{}
		}
	}
}

func flagsOf(f *Function) functionFlags {
	var flags functionFlags
	builtin := f.Schema == "pg_catalog"
	if f.Volatile && !(builtin && harmless(f.Name)) && !harmlessIn(f.Extension, f.Name) {
		flags |= writes
	}
	if builtin && localFunction(f.Name) {
		flags |= nodeLocal
	}
	if f.ActsOutside || strings.HasPrefix(f.Name, "dblink") {
		flags |= actsOutside
	}
	if f.OneArgument {
		flags |= oneArgument
	}
	return flags
}

func relationFlagsOf(r *Relation) relationFlags {
	var flags relationFlags
	switch r.Kind {
	case 'S':
		flags |= isSequence
	case 'f':
		flags |= isForeign
	}
	if r.Persistence == 'u' {
		flags |= isUnlogged
	}
	return flags
}

// fill collects the functions that a read may not call as (row).name.
func (k *Knowledge) fill() {
	for name, flags := range k.functions {
		if flags&oneArgument != 0 && flags != oneArgument {
			k.fields[name] = flags
		}
	}
}

// settle works out what depends on other things of the catalogue: views on what they select,
// tables on their policies and partitions, functions on the defaults of their arguments, domains
// on their checks. It goes on until nothing changes; nothing ever gets better again.
func (k *Knowledge) settle(src *Source) {
	p := &parser{}
	names := make(map[uint32]string, len(src.Relations))
	for i := range src.Relations {
		names[src.Relations[i].OID] = src.Relations[i].Name
	}
	for changed := true; changed; {
		changed = false
		for i := range src.Types {
			t := &src.Types[i]
			if _, bad := k.types[t.Name]; bad {
				continue
			}
			if _, base := k.types[t.Base]; base || t.Check != "" && k.expression(p, t.Check) != 0 {
				k.types[strings.Clone(t.Name)] = whyVolatileType
				changed = true
			}
		}
		for i := range src.Functions {
			f := &src.Functions[i]
			if f.Defaults != "" && k.functions[f.Name]&^oneArgument == 0 && k.expression(p, f.Defaults) != 0 {
				k.functions[f.Name] |= writes
				changed = true
			}
		}
		for i := range src.Relations {
			r := &src.Relations[i]
			if r.Definition != "" && k.relations[r.Name] == 0 {
				changed = k.worsen(r.Name, k.definition(p, r.Definition)) || changed
			}
		}
		for i := range src.Policies {
			changed = k.worsen(names[src.Policies[i].Relation], k.expression(p, src.Policies[i].Using)) || changed
		}
		for _, in := range src.Inherits {
			changed = k.worsen(names[in.Parent], k.relations[names[in.Child]]) || changed
		}
		if changed {
			k.fill()
		}
	}
}

// worsen adds flags to a relation and says whether that is news.
func (k *Knowledge) worsen(name string, flags relationFlags) bool {
	old, known := k.relations[name]
	if !known || old|flags == old {
		return false
	}
	k.relations[name] = old | flags
	return true
}

// expression judges the text of an expression of the catalogue.
func (k *Knowledge) expression(p *parser, text string) relationFlags {
	return k.definition(p, "SELECT "+text)
}

// definition judges a query of the catalogue: what a relation is whose reading runs it.
func (k *Knowledge) definition(p *parser, text string) relationFlags {
	b := []byte(text)
	p.begin(b, b, Env{Knowledge: k})
	p.statementsOf()
	switch {
	case p.text.proof <= proofRead:
		return 0
	case p.text.proof == proofLocal:
		return isLocal
	case p.text.why == whyForeign:
		return isForeign
	case p.text.why == whyUnlogged:
		return isUnlogged
	}
	return isWriting
}

// harmless says that a volatile function of pg_catalog neither writes nor shows what is true of
// one node only, so that a read may call it.
func harmless(name string) bool {
	switch name {
	case "random", "random_normal", "clock_timestamp", "timeofday", "current_query", "gen_random_uuid", "uuidv4", "uuidv7",
		"array_shuffle", "array_sample", "pg_sleep", "pg_sleep_for", "pg_sleep_until", "pg_jit_available",
		"pg_relation_size", "pg_table_size", "pg_indexes_size", "pg_total_relation_size", "pg_database_size", "pg_tablespace_size",
		"pg_collation_actual_version", "pg_database_collation_actual_version", "pg_partition_tree", "pg_partition_ancestors",
		"pg_get_wal_resource_managers", "amvalidate",
		"timezone", // one of its overloads is marked so before version 15
		// These take or return internal and cannot be called from SQL; columns may have such names.
		"system", "bernoulli", "bthandler", "hashhandler", "gisthandler", "ginhandler", "spghandler", "brinhandler",
		"heap_tableam_handler", "dsnowball_init", "dsnowball_lexize":
		return true
	}
	return false
}

// harmlessIn is harmless for functions of extensions.
func harmlessIn(extension, name string) bool {
	switch extension {
	case "pgcrypto":
		return name == "gen_random_bytes" || name == "gen_random_uuid" || name == "gen_salt"
	case "uuid-ossp":
		return name == "uuid_generate_v1" || name == "uuid_generate_v1mc" || name == "uuid_generate_v4"
	}
	return false
}

var localFunctions = []string{ // sorted
	"database_to_xml", "database_to_xml_and_xmlschema", // these run queries that the text does not show
	"inet_client_addr", "inet_client_port", "inet_server_addr", "inet_server_port",
	"pg_backend_pid", "pg_backup_start_time", "pg_conf_load_time", "pg_current_xact_id", "pg_current_xact_id_if_assigned", "pg_cursor",
	"pg_get_replication_slots",
	"pg_listening_channels", "pg_postmaster_start_time", "pg_prepared_statement",
	"pg_show_all_file_settings", "pg_show_all_settings",
	"pg_walfile_name", "pg_walfile_name_offset", // a standby refuses them
	"schema_to_xml", "schema_to_xml_and_xmlschema", "table_to_xml", "table_to_xml_and_xmlschema",
	"txid_current", "txid_current_if_assigned",
}

// localFunction says that a function of pg_catalog answers for one node or one connection, however
// stable it is declared.
func localFunction(name string) bool {
	if strings.HasPrefix(name, "pg_stat_get_") {
		return true
	}
	_, found := slices.BinarySearch(localFunctions, name)
	return found
}
