package oracle

import "strings"

// harmless are the volatile functions of pg_catalog that neither write nor are refused by a
// standby, and whose answer does not depend on the node or connection more than any read's does.
// Everything else that is volatile counts as a write, whatever it does.
var harmless = set(`
	random random_normal clock_timestamp timeofday pg_sleep pg_sleep_for pg_sleep_until
	gen_random_uuid uuidv4 uuidv7 array_shuffle array_sample current_query
	pg_relation_size pg_table_size pg_indexes_size pg_total_relation_size pg_database_size pg_tablespace_size
	pg_partition_tree pg_partition_ancestors pg_collation_actual_version pg_database_collation_actual_version
	pg_jit_available pg_get_wal_resource_managers amvalidate`)

// internal are functions that SQL cannot call, because an argument or result is of type internal.
var internal = set(`
	system bernoulli bthandler hashhandler gisthandler ginhandler spghandler brinhandler heap_tableam_handler
	dsnowball_init dsnowball_lexize`)

// local are the functions of pg_catalog that are declared stable or immutable although their
// answer is that of one node or connection, or although a standby refuses them. Those about a
// connection's temporary schema are not among them: who has temporary tables keeps his server.
var local = set(`
	inet_client_addr inet_client_port inet_server_addr inet_server_port
	pg_backend_pid pg_conf_load_time pg_postmaster_start_time
	pg_current_xact_id pg_current_xact_id_if_assigned txid_current txid_current_if_assigned
	pg_cursor pg_prepared_statement pg_get_replication_slots pg_listening_channels
	pg_show_all_settings pg_show_all_file_settings
	pg_walfile_name pg_walfile_name_offset
	table_to_xml table_to_xml_and_xmlschema schema_to_xml schema_to_xml_and_xmlschema
	database_to_xml database_to_xml_and_xmlschema`)

func isLocal(name string) bool { return local[name] || strings.HasPrefix(name, "pg_stat_get_") }

// parameters are those whose SET every server of the session is told.
var parameters = set(`
	application_name client_encoding datestyle timezone intervalstyle search_path extra_float_digits
	statement_timeout lock_timeout idle_in_transaction_session_timeout default_transaction_isolation
	default_transaction_read_only default_transaction_deferrable standard_conforming_strings bytea_output jit
	client_min_messages`)

func tracked(parameter string) bool { return parameters[parameter] }

// common are further parameters that are the same on all nodes of a cluster.
var common = set(`
	server_version server_version_num server_encoding integer_datetimes is_superuser session_authorization role
	lc_collate lc_ctype block_size wal_block_size segment_size max_identifier_length max_index_keys
	max_function_args data_checksums transaction_isolation`)

func sameEverywhere(parameter string) bool {
	return tracked(parameter) || common[parameter] || strings.Contains(parameter, ".")
}

func isTemporary(schema string) bool { return strings.HasPrefix(schema, "pg_temp") }

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}
