package oracle

// Bases are reads of many shapes, into which writes are put at every place.
var Bases = []string{
	"SELECT 1",
	"SELECT a, b AS c, t.*, * FROM s.t AS x (c1, c2) WHERE a = 1 AND b IN (1, 2) ORDER BY a DESC NULLS LAST LIMIT 10 OFFSET 5",
	"SELECT DISTINCT ON (a) a FROM t GROUP BY GROUPING SETS ((a), CUBE (a, b), ()) HAVING count(*) > 1 WINDOW w AS (PARTITION BY a ORDER BY b)",
	"SELECT sum(a) FILTER (WHERE b > 1) OVER (PARTITION BY c ORDER BY d ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
	"WITH x AS (SELECT 1), y (a, b) AS MATERIALIZED (VALUES (1, 2)) SELECT * FROM x, y",
	"WITH RECURSIVE r (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM r WHERE n < 5) SEARCH DEPTH FIRST BY n SET o CYCLE n SET c USING p SELECT * FROM r",
	"VALUES (1, 'a'), (2, 'b') ORDER BY 1 FETCH FIRST 1 ROW ONLY",
	"TABLE t", "TABLE ONLY s.t",
	"(SELECT 1 UNION SELECT 2) INTERSECT (SELECT 3 EXCEPT ALL (TABLE t)) ORDER BY 1",
	"SELECT (SELECT max(a) FROM u WHERE u.b = t.b), ARRAY(SELECT 1), EXISTS (SELECT 1), ARRAY[1, 2][1], ROW(1, 2), (t).a, a[1:2] FROM t",
	"SELECT CASE WHEN a THEN 1 ELSE 2 END, CAST(a AS int), a::numeric(10, 2), COALESCE(a, b), EXTRACT(year FROM d), SUBSTRING(a FROM 1 FOR 2), TRIM(BOTH 'x' FROM a) FROM t",
	"SELECT * FROM t JOIN u USING (id) LEFT JOIN v ON t.a = v.a CROSS JOIN w NATURAL JOIN z",
	"SELECT * FROM (SELECT 1) AS s (a), LATERAL (SELECT s.a) l, generate_series(1, 3) WITH ORDINALITY AS g (x, n), ROWS FROM (unnest(ARRAY[1]), abs(2) AS (a int)) r",
	"SELECT * FROM t TABLESAMPLE system (10) REPEATABLE (1) WHERE a BETWEEN SYMMETRIC 1 AND 2 OR b IS DISTINCT FROM c OR d IS NOT NULL",
	"SELECT a FROM t WHERE a = ANY (SELECT b FROM u) AND a > ALL (ARRAY[1]) AND (a, b) = (SELECT 1, 2) AND a LIKE 'x%' ESCAPE '!' AND a SIMILAR TO 'y'",
	"EXPLAIN SELECT * FROM t", "EXPLAIN (ANALYZE, FORMAT json) SELECT * FROM t", "EXPLAIN ANALYZE VERBOSE WITH x AS (SELECT 1) TABLE x",
	"COPY (SELECT 1) TO STDOUT", "COPY t (a, b) TO STDOUT WITH (FORMAT csv, HEADER)", "COPY s.t TO STDOUT",
	"DECLARE c SCROLL CURSOR FOR SELECT * FROM t", "FETCH FORWARD 5 FROM c", "CLOSE c", "MOVE NEXT IN c",
	"BEGIN READ ONLY", "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "COMMIT", "ROLLBACK TO SAVEPOINT a", "SET TRANSACTION READ ONLY",
	"SET search_path TO a, b", "SET LOCAL timezone = 'UTC'", "SHOW datestyle", "RESET ALL", "DISCARD PLANS", "DEALLOCATE p",
	"SELECT XMLTABLE.* FROM XMLTABLE('/a' PASSING x COLUMNS id int PATH '@id' DEFAULT 1)",
	"SELECT xmlelement(name a, xmlattributes(b AS c), d), xmlserialize(CONTENT x AS text) FROM t",
	"SELECT INTERVAL '1' YEAR, TIMESTAMP WITH TIME ZONE 'now', d AT TIME ZONE 'UTC', current_date, float8 '1', int4(2) FROM t",
	"SELECT a COLLATE \"C\", b OPERATOR(pg_catalog.+) 1, - c, d IS NORMALIZED, OVERLAY(e PLACING f FROM 1), f(VARIADIC g => 1) FROM t",
	"SELECT $1, $$a$$, $q$b$q$, E'\\n', U&'\\0041', B'1', X'1F', 1.5e3, .5 FROM t /* c /* d */ */ -- e",
	"SELECT 1; SELECT 2", "BEGIN READ ONLY; SELECT 1; COMMIT", ";;SELECT 1;",
}

// Snippets are writes, pieces of writes, and what looks like one.
var Snippets = []string{
	"nextval('s')", "(SELECT nextval('s'))", "pg_catalog.setval('s', 1)", "\"nextval\"('s')", "NextVal ( 's' )", ", nextval('s')", "+ nextval('s')",
	"nextval/* */('s')", "nextval--\n('s')", "U&\"nextval\"('s')", "currval('s'), 1", "pg_notify('a', 'b')", "AND set_config('a', 'b', false) = ''",
	"lo_unlink(1)", "(SELECT pg_advisory_lock(1))", ", pg_switch_wal()", "txid_current()", "(1).nextval", "(t).pg_notify", "t.lo_unlink", "query_to_xml('x', true, true, '')",
	"FOR UPDATE", "FOR NO KEY UPDATE OF t", "FOR SHARE SKIP LOCKED", "FOR KEY SHARE NOWAIT", "INTO x", "INTO TEMP x", "INTO UNLOGGED TABLE s.x", "INTO STRICT x",
	"WITH w AS (DELETE FROM t RETURNING *)", "WITH w AS (INSERT INTO t VALUES (1) RETURNING 1)", "WITH w AS (UPDATE t SET a = 1)", ", w AS (DELETE FROM t)",
	"WITH w AS MATERIALIZED (MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE)", "WITH w AS (WITH v AS (DELETE FROM t) SELECT 1)",
	"(WITH w AS (DELETE FROM t RETURNING 1) SELECT 1 FROM w)", "AS (DELETE FROM t RETURNING *)", "(DELETE FROM t RETURNING 1)", "DELETE FROM t", "INSERT INTO t",
	"UPDATE t SET a = 1", "MERGE INTO t USING u ON true WHEN MATCHED THEN DO NOTHING", "TRUNCATE t",
	"; DELETE FROM t", "; DROP TABLE t;", "; SELECT nextval('s')", ";/*;*/UPDATE t SET a = 1", "EXPLAIN ANALYZE DELETE FROM t", "EXPLAIN", "EXPLAIN (ANALYZE)",
	"COPY t FROM STDIN", "COPY (DELETE FROM t RETURNING 1) TO STDOUT", "TO PROGRAM 'x'", "TO '/tmp/x'", "FROM STDIN", "WITH HOLD", "DO $$x$$", "CALL p()",
	"LOCK t", "LISTEN a", "NOTIFY a", "VACUUM", "CREATE TABLE x AS", "CREATE TEMP TABLE x AS", "CREATE VIEW v AS", "PREPARE p AS", "EXECUTE p", "EXPLAIN EXECUTE p",
	"READ WRITE", "SET TRANSACTION READ WRITE", "BEGIN", "; BEGIN;", "ISOLATION LEVEL SERIALIZABLE", "SET transaction_read_only = off", "SET a = 1", "RESET transaction_read_only",
	"REFRESH MATERIALIZED VIEW m", "DISCARD ALL", "PREPARE TRANSACTION 'a'", "AND CHAIN", "WHERE CURRENT OF c", "RETURNING *", "ON CONFLICT DO NOTHING",
	"$$", "$a$", "'", "\"", "/*", "*/", "--", "E'\\", "''", "U&'", "\\", "(", ")", "[", "]", ";", ",", ".", "::", ":=", "..", "=>", "*", "AS", "FROM", "SELECT", "JOIN t ON",
	"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; DELETE FROM t; END", "CREATE RULE r AS ON SELECT TO t DO (SELECT 1; DELETE FROM u)",
	"seq", "FROM seq", "unlogged_table", "writes(1)", "reads(1)", "(x).writes", "::written", "### 1", "OPERATOR(s.###) 1", "written '1'", "CAST(1 AS written)",
	"/* cstproxy: primary */", "UNION ALL SELECT nextval('s')", "ORDER BY nextval('s')", "LIMIT nextval('s')", "USING (a) WHERE writes(a)", "OVER (ORDER BY writes(1))",
}

// words are names that are key words, and key words that may be names.
var words = []string{
	"update", "insert", "delete", "merge", "into", "for", "select", "with", "values", "table", "from", "share", "key", "no", "of", "begin", "end", "case", "as", "temp",
	"nextval", "function", "all", "only", "lateral", "rows", "row", "array", "over", "filter", "within", "group", "by", "set", "do", "returning", "using", "on", "join",
	"left", "full", "cross", "natural", "union", "except", "intersect", "not", "materialized", "recursive", "search", "cycle", "window", "partition", "fetch", "offset", "limit",
	"operator", "cast", "treat", "extract", "substring", "position", "overlay", "trim", "coalesce", "greatest", "nullif", "exists", "any", "some", "in", "between", "is", "null",
	"distinct", "ordinality", "tablesample", "repeatable", "xmltable", "xmlelement", "interval", "timestamp", "time", "zone", "at", "collate", "escape", "uescape", "symmetric",
	"\"select\"", "\"for\"", "\"nextval\"", "\"a\"\"b\"", "u&\"d!0061t!+000061\" uescape '!'", "\"\"", "e'\\'", "1", "1e", "1.5.", "0x1f", "1_000", "$1", "$1a", "é", "t", "a", "x",
	"current_schema", "current_user", "user", "setof", "varying", "character", "precision", "double", "bit", "national", "both", "leading", "placing", "name", "xmlattributes",
}

// blanks separate tokens, or seem to.
var blanks = []string{
	"", " ", "\n", "\t", "\r\n", "\f", "\v", "/**/", "/* ' \" $$ ; */", "/* /* */ DELETE */", "--\n", "-- ' \r", "--*/\n", "/*--*/", "/***/", "/*/*/**/*/*/", " \u00a0", "\n--\n",
}
