package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

// rig is one PostgreSQL with users of every authentication method; a dialler and its tests.
type rig struct {
	t    *testing.T
	pg   *pglocal.Cluster
	node topology.Node
	sock topology.Node
	dir  string
}

func (r *rig) dialer(change func(*DialConfig)) *Dialer {
	r.t.Helper()
	cfg := DefaultDialConfig()
	cfg.Timeout = time.Minute // the machine may be busy
	if change != nil {
		change(&cfg)
	}
	d, err := NewDialer(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

// login dials and, when that works, runs a query.
func login(t *testing.T, d *Dialer, req DialRequest) error {
	t.Helper()
	conn, l, err := d.DialConn(context.Background(), req)
	if err != nil {
		return err
	}
	defer conn.Close()
	if l.PID == 0 || len(l.Secret) < 4 || len(l.Parameters) < 10 {
		t.Errorf("login of %s: %+v", req.User, l)
	}
	if got := ask(t, conn, "SELECT current_user"); got != req.User {
		t.Errorf("the server takes %s for %s", req.User, got)
	}
	return nil
}

// ask runs a query that returns one short value, and reads until ReadyForQuery.
func ask(t *testing.T, conn net.Conn, sql string) string {
	t.Helper()
	if _, err := conn.Write(wire.AppendQuery(nil, []byte(sql))); err != nil {
		t.Fatal(err)
	}
	var all []byte
	buf := make([]byte, 4096)
	for !strings.HasSuffix(string(all), "Z\x00\x00\x00\x05I") {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, all)
		}
		all = append(all, buf[:n]...)
	}
	for len(all) > 5 {
		n := 1 + int(all[3])<<8 + int(all[4])
		if all[0] == 'D' {
			return string(all[11:n])
		}
		if all[0] == 'E' {
			return string(all[5:n])
		}
		all = all[n:]
	}
	return ""
}

// keysOf takes the part of a client that logs in with its password.
func keysOf(t *testing.T, rolpassword, password string) *auth.Keys {
	t.Helper()
	v, err := auth.ParseVerifier(rolpassword)
	if err != nil {
		t.Fatal(err)
	}
	server, client := auth.NewScramServer(v, time.Now()), auth.NewScramClientWithPassword(password)
	first, err := server.First(client.First())
	if err != nil {
		t.Fatal(err)
	}
	final, err := client.Continue(first)
	if err != nil {
		t.Fatal(err)
	}
	answer, keys, err := server.Final(final)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Final(answer); err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestDiallingRealServers(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Standbys: 1, TLS: true})
	ctx := context.Background()
	n := pg.Primary()
	for _, sql := range []string{
		"CREATE ROLE s LOGIN PASSWORD 'sésame ouvre-toi'",
		"CREATE ROLE nologin PASSWORD 'x'",
		"CREATE ROLE old LOGIN PASSWORD 'x' VALID UNTIL '2020-01-01'",
		"SET password_encryption = 'md5'; CREATE ROLE m LOGIN PASSWORD 'md5word'",
		"CREATE ROLE c LOGIN PASSWORD 'clear'", "CREATE ROLE trusted LOGIN", "CREATE ROLE ssl LOGIN", "CREATE ROLE certy LOGIN",
		"CREATE ROLE rejected LOGIN", "CREATE DATABASE shop",
	} {
		if _, err := n.Psql(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	hba := "local all all trust\nhost all m 127.0.0.1/32 md5\nhost all c 127.0.0.1/32 password\nhost all trusted 127.0.0.1/32 trust\n" +
		"hostssl all certy 127.0.0.1/32 cert\nhostssl all ssl 127.0.0.1/32 trust\nhost all rejected 127.0.0.1/32 reject\nhost all all 127.0.0.1/32 scram-sha-256\n" +
		"host replication all 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(n.Dir, "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Psql(ctx, "SELECT pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	awaitReload(t, n)
	r := &rig{t: t, pg: pg, dir: t.TempDir(),
		node: topology.Node{Host: n.Host, Port: n.Port}, sock: topology.Node{Host: n.SocketDir, Port: n.Port}}
	t.Run("each method logs in", r.methods)
	t.Run("keys open every node", r.keys)
	t.Run("refusals arrive as they are", r.refusals)
	t.Run("TLS modes", r.tlsModes)
	t.Run("a client certificate is a credential", r.certificate)
	t.Run("cancel", r.cancel)
	t.Run("start-up parameters", r.parameters)
	t.Run("transports for the loop", r.transports)
}

func awaitReload(t *testing.T, n *pglocal.Node) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	d, _ := NewDialer(DialConfig{Timeout: time.Minute, TLS: TLSDisable})
	for {
		conn, _, err := d.DialConn(context.Background(), DialRequest{Node: topology.Node{Host: n.Host, Port: n.Port}, User: "trusted", Database: "postgres"})
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func (r *rig) methods(t *testing.T) {
	file := filepath.Join(r.dir, "pgpass")
	lines := fmt.Sprintf("127.0.0.1:%d:*:s:sésame ouvre-toi\n*:*:*:m:md5word\n*:*:*:c:clear\n", r.node.Port)
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	d := r.dialer(func(c *DialConfig) { c.PasswordFile = file })
	for _, req := range []DialRequest{
		{Node: r.node, Database: "shop", User: "s"},
		{Node: r.node, Database: "shop", User: "m"},
		{Node: r.node, Database: "shop", User: "c"},
		{Node: r.node, Database: "shop", User: "trusted"},
		{Node: r.sock, Database: "shop", User: "s"},
		{Node: r.node, Database: "shop", User: "postgres", Credential: Credential{Password: r.pg.Password()}},
	} {
		if err := login(t, d, req); err != nil {
			t.Errorf("%s at %s: %v", req.User, req.Node.Host, err)
		}
	}
	if err := login(t, r.dialer(nil), DialRequest{Node: r.node, Database: "shop", User: "s"}); !errors.Is(err, ErrNoCredential) {
		t.Error(err)
	}
}

func (r *rig) keys(t *testing.T) {
	ctx := context.Background()
	secret, err := r.pg.Primary().Psql(ctx, "SELECT rolpassword FROM pg_authid WHERE rolname = 's'")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.pg.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	keys := keysOf(t, secret, "sésame ouvre-toi")
	d := r.dialer(nil)
	for _, n := range r.pg.Nodes() {
		req := DialRequest{Node: topology.Node{Host: n.Host, Port: n.Port}, Database: "shop", User: "s", Credential: Credential{Keys: keys}}
		if err := login(t, d, req); err != nil {
			t.Errorf("%s: %v", n.Name, err)
		}
	}
}

func (r *rig) refusals(t *testing.T) {
	d := r.dialer(nil)
	wrong := Credential{Password: "wrong"}
	for _, c := range []struct {
		req  DialRequest
		code string
	}{
		{DialRequest{Database: "shop", User: "s", Credential: wrong}, "28P01"},
		{DialRequest{Database: "shop", User: "nobody", Credential: wrong}, "28P01"},
		{DialRequest{Database: "shop", User: "old", Credential: Credential{Password: "x"}}, "28P01"},
		{DialRequest{Database: "shop", User: "nologin", Credential: Credential{Password: "x"}}, "28000"},
		{DialRequest{Database: "shop", User: "rejected"}, "28000"},
		{DialRequest{Database: "absent", User: "trusted"}, "3D000"},
		{DialRequest{Database: "shop", User: "trusted", Parameters: []wire.Parameter{{Name: "work_mem", Value: "x"}}}, "22023"},
	} {
		c.req.Node = r.node
		var refusal *ServerError
		if err := login(t, d, c.req); !errors.As(err, &refusal) || refusal.SQLState() != c.code || refusal.Severity != "FATAL" || refusal.Body()[0] != 'S' {
			t.Errorf("%s at %s: %v, want %s", c.req.User, c.req.Database, err, c.code)
		}
	}
	gone := r.node
	gone.Port = 1
	if err := login(t, d, DialRequest{Node: gone, User: "s"}); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
}

func (r *rig) tlsModes(t *testing.T) {
	foreign := filepath.Join(r.dir, "foreign.crt")
	other := pglocal.ForTest(t, pglocal.Options{TLS: true})
	ca, err := os.ReadFile(other.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(foreign, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	named := r.node
	named.Host = "localhost"
	for _, c := range []struct {
		mode   TLSMode
		ca     string
		node   topology.Node
		failed string
	}{
		{TLSDisable, "", r.node, "asks user \"ssl\" for scram"},
		{TLSPrefer, "", r.node, ""},
		{TLSPrefer, foreign, r.node, ""},
		{TLSRequire, "", r.node, ""},
		{TLSRequire, r.pg.CAFile(), r.node, ""},
		{TLSRequire, foreign, r.node, "unknown authority"},
		{TLSVerifyCA, r.pg.CAFile(), r.node, ""},
		{TLSVerifyCA, foreign, r.node, "unknown authority"},
		{TLSVerifyFull, r.pg.CAFile(), r.node, ""},
		{TLSVerifyFull, r.pg.CAFile(), named, ""},
		{TLSVerifyFull, foreign, r.node, "unknown authority"},
	} {
		d := r.dialer(func(cfg *DialConfig) { cfg.TLS, cfg.CAFile = c.mode, c.ca })
		err := login(t, d, DialRequest{Node: c.node, Database: "shop", User: "ssl"})
		if (c.failed == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.failed) {
			t.Errorf("%s at %s: %v, want %q", c.mode, c.node.Host, err, c.failed)
		}
	}
	r.wrongName(t)
}

// wrongName shows what verify-full adds: the certificate is signed by the CA, but not made out to
// the name under which the node is known.
func (r *rig) wrongName(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.9:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan struct{})
	go func() { // waited for below
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			relay(c, net.JoinHostPort(r.node.Host, fmt.Sprint(r.node.Port)))
		}
	}()
	node := topology.Node{Host: "127.0.0.9", Port: ln.Addr().(*net.TCPAddr).Port}
	for mode, want := range map[TLSMode]string{TLSVerifyCA: "", TLSVerifyFull: "127.0.0.9"} {
		d := r.dialer(func(cfg *DialConfig) { cfg.TLS, cfg.CAFile = mode, r.pg.CAFile() })
		err := login(t, d, DialRequest{Node: node, Database: "shop", User: "ssl"})
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", mode, err)
		}
	}
	ln.Close()
	<-done
}

// relay copies both ways until one side ends.
func relay(c net.Conn, to string) {
	defer c.Close()
	s, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	done := make(chan struct{})
	go func() { // waited for below
		defer close(done)
		copyAll(s, c)
	}()
	copyAll(c, s)
	<-done
}

func copyAll(to, from net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			to.Close()
			from.Close()
			return
		}
	}
}

func (r *rig) cancel(t *testing.T) {
	for _, mode := range []TLSMode{TLSDisable, TLSRequire} {
		d := r.dialer(func(c *DialConfig) { c.TLS = mode })
		conn, l, err := d.DialConn(context.Background(), DialRequest{Node: r.node, Database: "shop", User: "trusted"})
		if err != nil {
			t.Fatal(err)
		}
		answer := make(chan string)
		go func() { answer <- ask(t, conn, "SELECT pg_sleep(600)") }() // received below
		awaitSleep(t, r.pg.Primary())
		if err := d.Cancel(context.Background(), r.node, l.PID, l.Secret); err != nil {
			t.Error(mode, err)
		}
		if got := <-answer; !strings.Contains(got, "C57014") {
			t.Errorf("%s: %q", mode, got)
		}
		conn.Close()
	}
}

func awaitSleep(t *testing.T, n *pglocal.Node) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		got, err := n.Psql(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'")
		if err != nil || time.Now().After(deadline) {
			t.Fatal(err)
		}
		if got == "1" {
			return
		}
	}
}

func (r *rig) parameters(t *testing.T) {
	d := r.dialer(nil)
	for want, req := range map[string]DialRequest{
		"cstproxy": {Node: r.node, Database: "shop", User: "trusted"},
		"mine":     {Node: r.node, Database: "shop", User: "trusted", Parameters: []wire.Parameter{{Name: "application_name", Value: "mine"}}},
	} {
		conn, l, err := d.DialConn(context.Background(), req)
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(t, conn, "SHOW application_name"); got != want {
			t.Errorf("application_name %s, want %s", got, want)
		}
		found := false
		for _, p := range l.Parameters {
			found = found || p == wire.Parameter{Name: "application_name", Value: want}
		}
		if !found {
			t.Errorf("not reported: %v", l.Parameters)
		}
		conn.Close()
	}
}

func (r *rig) transports(t *testing.T) {
	for _, mode := range []TLSMode{TLSDisable, TLSRequire} {
		d := r.dialer(func(c *DialConfig) { c.TLS = mode })
		l, err := d.Dial(context.Background(), DialRequest{Node: r.node, Database: "shop", User: "trusted"})
		if err != nil {
			t.Fatal(err)
		}
		if l.Transport == nil || l.Transport.TLS() != (mode == TLSRequire) || l.PID == 0 {
			t.Errorf("%s: %+v", mode, l)
		}
		l.Transport.Close()
		if l, err := d.Dial(context.Background(), DialRequest{Node: r.node, Database: "absent", User: "trusted"}); l != nil || err == nil {
			t.Error(l, err)
		}
	}
}
