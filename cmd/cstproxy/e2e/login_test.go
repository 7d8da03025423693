package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// sqlState is an error's code; "" for none, "?" for one that no server gave.
func sqlState(err error) string {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &pg):
		return pg.Code
	}
	return "? " + err.Error()
}

func TestLoginsEndAsTheyWouldDirectly(t *testing.T) {
	w := sharedWorld(t)
	ctx := t.Context()
	for _, sql := range []string{
		"DROP ROLE IF EXISTS expired; CREATE ROLE expired LOGIN PASSWORD 'x' VALID UNTIL '2001-01-01'",
		"DROP ROLE IF EXISTS locked; CREATE ROLE locked NOLOGIN PASSWORD 'x'",
		"DROP ROLE IF EXISTS bare; CREATE ROLE bare LOGIN",
		`DROP ROLE IF EXISTS "Grüße ☃"; CREATE ROLE "Grüße ☃" LOGIN PASSWORD 'pä ss:w\@/'`,
	} {
		if _, err := w.cluster.Primary().Psql(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.cluster.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, user, password, database string }{
		{"right password", appUser, appPassword, appDB},
		{"wrong password", appUser, "wrong", appDB},
		{"unknown user", "nobody_at_all", "x", appDB},
		{"expired password", "expired", "x", appDB},
		{"role without LOGIN", "locked", "x", appDB},
		{"role without a password", "bare", "x", appDB},
		{"unknown database", appUser, appPassword, "no_such_database"},
		{"name and password beyond ASCII", "Grüße ☃", `pä ss:w\@/`, appDB},
	} {
		t.Run(c.name, func(t *testing.T) {
			state := func(address string) string {
				cfg, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s/postgres?sslmode=disable", address))
				if err != nil {
					t.Fatal(err)
				}
				cfg.User, cfg.Password, cfg.Database = c.user, c.password, c.database
				conn, err := pgx.ConnectConfig(ctx, cfg)
				if err != nil {
					return sqlState(err)
				}
				defer conn.Close(ctx)
				_, err = conn.Exec(ctx, "SELECT 1")
				return sqlState(err)
			}
			if got, want := state(w.proxy.Listen()), state(w.cluster.Primary().Address()); got != want {
				t.Errorf("through the proxy %q, directly %q", got, want)
			}
		})
	}
}

// The proxy has the old verifier in memory and has named its salt before it learns of the change:
// one login may fail, and has the proxy ask again.
func TestAChangedPasswordCountsAtTheSecondTryAtTheLatest(t *testing.T) {
	w := sharedWorld(t)
	alter := func(password string) {
		if _, err := w.cluster.Primary().Psql(t.Context(), "ALTER ROLE changer PASSWORD '"+password+"'"); err != nil {
			t.Fatal(err)
		}
		if err := w.cluster.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.cluster.Primary().Psql(t.Context(), "DROP ROLE IF EXISTS changer; CREATE ROLE changer LOGIN"); err != nil {
		t.Fatal(err)
	}
	for _, password := range []string{"first", "second"} {
		alter(password)
		conn, err := pgx.Connect(t.Context(), w.proxy.URL("changer", password, appDB))
		if sqlState(err) == "28P01" {
			conn, err = pgx.Connect(t.Context(), w.proxy.URL("changer", password, appDB))
		}
		if err != nil {
			t.Fatalf("log in with the %s password: %v", password, err)
		}
		for _, sql := range []string{"SELECT 1", "CREATE TEMP TABLE t()"} { // a standby's server, and the primary's
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Errorf("%s with the %s password: %v", sql, password, err)
			}
		}
		_ = conn.Close(t.Context())
	}
	if _, err := pgx.Connect(t.Context(), w.proxy.URL("changer", "first", appDB)); sqlState(err) != "28P01" {
		t.Errorf("the old password: %v", err)
	}
}

func TestRulesRejectAndTrust(t *testing.T) {
	w := sharedWorld(t)
	p := w.secondProxy(t, stand.Options{More: `
[[hba]]
type = "host"
database = "all"
user = "rejected"
address = "all"
method = "reject"

[[hba]]
type = "host"
database = "app"
user = "app"
address = "127.0.0.1/32"
method = "scram-sha-256"
`})
	_ = connect(t, p.URL(appUser, appPassword, appDB))
	for _, c := range []struct{ user, database string }{{"rejected", appDB}, {appUser, "postgres"}, {"other", appDB}} {
		if _, err := pgx.Connect(t.Context(), p.URL(c.user, appPassword, c.database)); sqlState(err) != "28000" {
			t.Errorf("%s at %s: %v; want 28000", c.user, c.database, err)
		}
	}
}

func TestTLSOnBothSides(t *testing.T) {
	w := newWorld(t, setup{servers: pglocal.Options{Standbys: 1, TLS: true}})
	ca := w.cluster.CAFile()
	dir := w.cluster.Dir()
	p := w.secondProxy(t, stand.Options{
		Proxy: fmt.Sprintf("tls = \"require\"\ntls_cert_file = %q\ntls_key_file = %q\nserver_tls = \"verify-full\"\nserver_tls_ca_file = %q\n",
			dir+"/server.crt", dir+"/server.key", ca),
	})
	url := p.URL(appUser, appPassword, appDB)
	conn := connect(t, url+"?sslmode=verify-full&sslrootcert="+ca)
	mustExec(t, conn, "CREATE TABLE secret AS SELECT g, repeat('x', 1000) AS pad FROM generate_series(1, 20000) g")
	for _, tls := range []string{"TRUE", "true"} { // primary, then perhaps a standby
		var on bool
		if err := conn.QueryRow(t.Context(), "SELECT ssl IS "+tls+" FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&on); err != nil || !on {
			t.Errorf("the server connection is not encrypted: %v, %v", on, err)
		}
	}
	var n int
	rows, err := conn.Query(t.Context(), "SELECT pad FROM secret")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		n += len(rows.RawValues()[0])
	}
	if rows.Err() != nil || n != 20000*1000 {
		t.Errorf("%d bytes of 20,000,000 over TLS: %v", n, rows.Err())
	}
	if _, err := pgx.Connect(t.Context(), url+"?sslmode=disable"); err == nil {
		t.Error("a client without TLS was let in")
	}
}

// The servers ask for a password that a trusted client has not shown and no file has.
func TestATrustedUserWithoutAPasswordForTheServersIsToldSo(t *testing.T) {
	w := sharedWorld(t)
	p := w.secondProxy(t, stand.Options{More: trustAll, Proxy: `wait_timeout = "2s"`})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL(appUser, appPassword, appDB))
	if err == nil {
		_, err = conn.Exec(ctx, "SELECT 1")
		_ = conn.Close(ctx)
	}
	if state := sqlState(err); len(state) != 5 {
		t.Errorf("want an error of the protocol, got: %v", err)
	}
}
