package e2e

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// opening is how a framework greets a new connection: start-up parameters and statements.
type opening struct {
	name       string
	params     map[string]string
	simple     []string // by the simple protocol
	extended   []string // by Parse, Bind, Execute, Sync
	wantValues map[string]string
	// pins says that it sets something that is not repeated on other servers, so that the session
	// stays with one: what counts then is only that the settings hold.
	pins bool
}

func openings() []opening {
	return []opening{
		{
			name:   "Django with psycopg2",
			params: map[string]string{"client_encoding": "UTF8"},
			simple: []string{"SET datestyle TO 'ISO'", "SHOW default_transaction_isolation", "SET TIME ZONE 'Europe/Vienna'",
				"SET default_transaction_isolation TO 'read committed'"},
			wantValues: map[string]string{"TimeZone": "Europe/Vienna", "DateStyle": "ISO, MDY"},
		},
		{
			name:       "Django 5 with psycopg 3",
			params:     map[string]string{"client_encoding": "UTF8"},
			extended:   []string{"SELECT set_config('TimeZone', 'UTC', false)", "SET idle_in_transaction_session_timeout = 30000"},
			wantValues: map[string]string{"TimeZone": "UTC"},
		},
		{
			name:       "Django 5 with psycopg 3 and a role to assume",
			params:     map[string]string{"client_encoding": "UTF8"},
			extended:   []string{"SELECT set_config('TimeZone', 'UTC', false)", "SELECT set_config('role', 'none', false)"},
			wantValues: map[string]string{"TimeZone": "UTC"},
			pins:       true, // set_config of the role
		},
		{
			name: "pgJDBC",
			params: map[string]string{"client_encoding": "UTF8", "DateStyle": "ISO", "TimeZone": "Asia/Shanghai",
				"extra_float_digits": "2"},
			extended:   []string{"SET extra_float_digits = 3", "SET application_name = 'PostgreSQL JDBC Driver'"},
			wantValues: map[string]string{"TimeZone": "Asia/Shanghai", "extra_float_digits": "3", "application_name": "PostgreSQL JDBC Driver"},
		},
		{
			name:   "Rails",
			params: map[string]string{"client_encoding": "unicode"},
			simple: []string{"SET client_min_messages TO 'warning'", "SET standard_conforming_strings = on",
				"SET SESSION timezone TO 'UTC'", "SET intervalstyle = iso_8601", "SET search_path TO public"},
			wantValues: map[string]string{"IntervalStyle": "iso_8601", "search_path": "public"},
		},
		{
			name:       "Npgsql",
			params:     map[string]string{"client_encoding": "UTF8", "application_name": "npgsql", "options": "-c statement_timeout=45s -c jit=off"},
			wantValues: map[string]string{"statement_timeout": "45s", "jit": "off", "application_name": "npgsql"},
		},
	}
}

func TestFrameworksOpeningsKeepTheirReadsOnTheStandbys(t *testing.T) {
	w := sharedWorld(t)
	for _, o := range openings() {
		t.Run(o.name, func(t *testing.T) {
			testOpening(t, w, o)
		})
	}
}

func testOpening(t *testing.T, w *world, o opening) {
	t.Helper()
	cfg, err := pgconn.ParseConfig(w.through())
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range o.params {
		cfg.RuntimeParams[name] = value
	}
	conn, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, sql := range o.simple {
		if _, err := conn.Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for _, sql := range o.extended {
		if r := conn.ExecParams(t.Context(), sql, nil, nil, nil, nil).Read(); r.Err != nil {
			t.Fatalf("%s: %v", sql, r.Err)
		}
	}
	if !o.pins { // what it said to the primary counts as a write: each standby answers once it is seen to be past that
		await(t, "reads on both standbys", func() bool {
			seen := map[string]bool{readNode(t, conn, 0): true, readNode(t, conn, 1): true}
			return len(seen) == 2 && !seen[w.cluster.Primary().Name]
		})
	}
	nodes := map[string]int{}
	const reads = 200
	for i := range reads {
		nodes[readNode(t, conn, i)]++
	}
	for name, want := range o.wantValues {
		for range 3 { // on whichever server
			r := conn.ExecParams(t.Context(), fmt.Sprintf("SELECT current_setting('%s') FROM pgbench_branches LIMIT 1", name), nil, nil, nil, nil).Read()
			if r.Err != nil || len(r.Rows) != 1 || string(r.Rows[0][0]) != want {
				t.Errorf("%s is %s, %v; want %s", name, r.Rows, r.Err, want)
			}
		}
	}
	if !o.pins {
		w.wantShares(t, nodes, w.evenly())
	}
}

// readNode reads by alternating protocols and returns the server's name.
func readNode(t *testing.T, conn *pgconn.PgConn, i int) string {
	t.Helper()
	const sql = "SELECT current_setting('pglocal.node'), abalance FROM pgbench_accounts WHERE aid = 1"
	if i%2 == 0 {
		r, err := conn.Exec(t.Context(), sql).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		return string(r[0].Rows[0][0])
	}
	r := conn.ExecParams(t.Context(), sql, nil, nil, nil, nil).Read()
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	return string(r.Rows[0][0])
}
