package proxy

import (
	"context"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

// The model is worth something only as long as it answers as PostgreSQL does.
func TestTheModelAnswersAsPostgreSQLDoes(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Auth: pglocal.Trust, Settings: map[string]string{"timezone": "'Etc/UTC'"}})
	if _, err := pg.Primary().Psql(context.Background(), "create table t0 (a int check (a <> 0)); create table t0r (like t0)"); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		turns := append([]string{`Query "delete from t0"`}, drawProgram(rt, "t0")...)
		want := normalize(askPostgres(t, pg.Primary().Address(), encodeProgram(t, turns)))
		_, want, _ = strings.Cut(want, "\nReady I\n") // behind the DELETE
		model := newModelServer(&modelDB{rows: map[string]int{}})
		got := normalize(renderMessages(model.take(encodeProgram(t, turns[1:])), true))
		if got != want {
			rt.Fatalf("a client sends\n  %s\n%s\nPostgreSQL:\n%s", strings.Join(turns, "\n  "), firstDifference(want, got), want)
		}
	})
}

// The same with everything real: sockets, the event loop, a pool of two connections, PostgreSQL. And
// with clients that shut down their sending side, at the end or anywhere, which the model does not know.
func TestARealClientReadsThroughTheProxyWhatItWouldReadDirectly(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Auth: pglocal.Trust, Settings: map[string]string{"timezone": "'Etc/UTC'"}})
	if _, err := pg.Primary().Psql(context.Background(), "create table t0 (a int check (a <> 0))"); err != nil {
		t.Fatal(err)
	}
	board := topology.NewBoard("main")
	node := topology.Node{ID: 1, Host: pg.Primary().Host, Port: pg.Primary().Port, Weight: 1}
	board.Publish(&topology.View{Cluster: "main", Epoch: 1, Primary: 1, SystemID: 7, Rounds: topology.NewRounds(),
		Nodes: []topology.NodeView{{Node: node, Role: topology.RolePrimary, Health: topology.Healthy}}})
	p := startProxy(t, board, []auth.Rule{{Type: "host", Database: "all", User: "all", Address: "all", Method: "trust"}})
	rapid.Check(t, func(rt *rapid.T) {
		first := `Query "delete from t0"`
		program := encodeProgram(t, append([]string{first}, drawProgram(rt, "t0")...))
		switch rapid.IntRange(0, 3).Draw(rt, "end") {
		case 0:
			program = append(program, encodeProgram(t, []string{"Terminate"})...)
		case 1, 2:
			program = program[:rapid.IntRange(len(encodeProgram(t, []string{first})), len(program)).Draw(rt, "cut")]
		}
		_, want, _ := strings.Cut(normalize(askPostgres(t, pg.Primary().Address(), program)), "\nReady I\n")
		_, got, _ := strings.Cut(normalize(askPostgres(t, p.Addresses()[0].String(), program)), "\nReady I\n")
		if got != want {
			rt.Fatalf("a client sends %q\n%s\nPostgreSQL:\n%s", program, firstDifference(want, got), want)
		}
	})
}

// askPostgres logs in, sends everything, shuts down its sending side, and reads to the end.
func askPostgres(t testing.TB, address string, program []byte) []string {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	all := append(startupPacket(wire.Version30, "user", pglocal.Superuser, "database", "postgres"), program...)
	if _, err := conn.Write(all); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	list := renderMessages(out, true)
	for i, m := range list {
		if strings.HasPrefix(m, "Ready") {
			return list[i+1:]
		}
	}
	return nil
}

// normalize leaves out what the model does not have: texts and further fields of errors, types of
// parameters, other reported parameters.
func normalize(list []string) string {
	var out []string
	for _, m := range list {
		word, _, _ := strings.Cut(m, " ")
		switch word {
		case "Status":
			if !strings.HasPrefix(m, `Status "TimeZone"`) && !strings.HasPrefix(m, `Status "application_name"`) {
				continue
			}
		case "Error", "Notice":
			m = errorHead.FindString(m)
		case "Parameters":
			m = parameterType.ReplaceAllString(m, "x")
		}
		out = append(out, m)
	}
	return strings.Join(sortStatus(out), "\n")
}

// sortStatus puts reports that come together in order: servers do not promise any.
func sortStatus(list []string) []string {
	for i := 0; i < len(list); i++ {
		j := i
		for j < len(list) && strings.HasPrefix(list[j], "Status") {
			j++
		}
		slices.Sort(list[i:j])
		i = max(i, j-1)
	}
	return list
}

var (
	errorHead     = regexp.MustCompile(`^\w+ \w+ \w+`)
	parameterType = regexp.MustCompile(`\d+`)
)
