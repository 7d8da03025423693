package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
	"github.com/cstproxy/cstproxy/ha/pglocal"
)

func frontend(typ byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4)), body...)
}

func simpleQuery(sql string) []byte { return frontend('Q', sql+"\x00") }

// group is Parse, Bind, Describe and Execute of one statement, without anything behind them.
func group(sql string) []byte {
	return bytes.Join([][]byte{frontend('P', "\x00"+sql+"\x00\x00\x00"), frontend('B', "\x00\x00\x00\x00\x00\x00\x00\x00"),
		frontend('D', "P\x00"), frontend('E', "\x00\x00\x00\x00\x00")}, nil)
}

// lastWords is what a client sends before it shuts down its sending side.
type lastWords struct {
	name  string
	first []byte // answered up to byte, before the rest is sent; may be empty
	until byte
	rest  []byte
}

func lastWordsOfClients() []lastWords {
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	sync, flush, half := frontend('S', ""), frontend('H', ""), []byte("Q\x00\x00\x00\x20select")
	copyIn := simpleQuery("COPY halves FROM STDIN")
	return []lastWords{
		{name: "nothing"},
		{name: "a query", rest: simpleQuery("SELECT count(*) FROM pgbench_branches")},
		{name: "a query that takes its time", rest: simpleQuery("SELECT pg_sleep(0.3)")},
		{name: "a write", rest: simpleQuery("INSERT INTO halves VALUES (1)")},
		{name: "queries of which one fails", rest: join(simpleQuery("SELECT 1"), simpleQuery("SELECT 1/0"), simpleQuery("INSERT INTO halves VALUES (2)"))},
		{name: "a large answer", rest: simpleQuery("SELECT repeat('x', 1000) FROM generate_series(1, 5000)")},
		{name: "three groups", rest: join(group("SELECT 1"), sync, group("INSERT INTO halves VALUES (3)"), sync, group("SELECT 1/0"), sync)},
		{name: "a group with Flush", rest: join(group("INSERT INTO halves VALUES (4)"), flush)},
		{name: "a group with Flush that was answered", first: join(group("INSERT INTO halves VALUES (4)"), flush), until: 'C'},
		{name: "a group with an error and Flush", rest: join(group("SELECT 1/0"), flush)},
		{name: "a group with neither", rest: group("INSERT INTO halves VALUES (5)")},
		{name: "a group with neither, and an error", rest: group("SELEC")},
		{name: "a group behind a Sync", rest: join(group("SELECT 1"), sync, group("INSERT INTO halves VALUES (6)"))},
		{name: "BEGIN", rest: simpleQuery("BEGIN")},
		{name: "a transaction", first: simpleQuery("BEGIN"), until: 'Z', rest: simpleQuery("INSERT INTO halves VALUES (7)")},
		{name: "a failed transaction", rest: join(simpleQuery("BEGIN"), simpleQuery("SELECT 1/0"))},
		{name: "a whole transaction", rest: join(simpleQuery("BEGIN"), simpleQuery("INSERT INTO halves VALUES (8)"), simpleQuery("COMMIT"))},
		{name: "COPY in", first: copyIn, until: 'G', rest: frontend('d', "9\n")},
		{name: "COPY in, all at once", rest: join(copyIn, frontend('d', "9\n"))},
		{name: "COPY in, half a message", first: copyIn, until: 'G', rest: join(frontend('d', "9\n"), []byte("d\x00\x00\x00\x20"))},
		{name: "COPY in, extended", first: join(group("COPY halves FROM STDIN"), sync), until: 'G', rest: frontend('d', "9\n")},
		{name: "COPY in that fails", first: copyIn, until: 'G', rest: frontend('d', "x\n")},
		{name: "COPY in, complete", rest: join(copyIn, frontend('d', "10\n"), frontend('c', ""))},
		{name: "COPY out", rest: simpleQuery("COPY (SELECT generate_series(1, 2000)) TO STDOUT")},
		{name: "half a message", rest: half},
		{name: "a query and half a message", rest: join(simpleQuery("SELECT 1"), half)},
		{name: "a notice", rest: simpleQuery("DO $$ BEGIN RAISE NOTICE 'half'; END $$")},
	}
}

// TestAClientThatSendsNoMoreReadsWhatPostgreSQLWouldAnswer compares every byte behind the greeting, and
// what is in the table in the end.
func TestAClientThatSendsNoMoreReadsWhatPostgreSQLWouldAnswer(t *testing.T) {
	w := sharedWorld(t)
	session := w.secondProxy(t, stand.Options{Proxy: "pool_mode = \"session\""})
	direct := w.direct(w.cluster.Primary())
	owner := connect(t, direct)
	mustExec(t, owner, "DROP TABLE IF EXISTS halves; CREATE TABLE halves (i int)")
	for _, words := range lastWordsOfClients() {
		t.Run(words.name, func(t *testing.T) {
			want := heardOut(t, direct, words) + "\n" + left(t, w)
			for name, url := range map[string]string{"transaction": w.through(), "session": session.URL(appUser, appPassword, appDB)} {
				if got := heardOut(t, url, words) + "\n" + left(t, w); got != want {
					t.Errorf("%s pooling: read\n%q\ndirectly:\n%q", name, got, want)
				}
			}
		})
	}
	await(t, "all transactions to end", func() bool { return openTransactions(t, w) == "0" })
}

// left empties the table and says what was in it. Who is rolled back may still hold its locks.
func left(t *testing.T, w *world) string {
	t.Helper()
	got, err := w.cluster.Primary().PsqlIn(t.Context(), appDB, "WITH gone AS (DELETE FROM halves RETURNING i) SELECT string_agg(i::text, ',') FROM gone")
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// openTransactions counts the application's at the primary.
func openTransactions(t *testing.T, w *world) string {
	t.Helper()
	got, err := w.cluster.Primary().PsqlIn(t.Context(), appDB, "SELECT count(*) FROM pg_stat_activity WHERE usename = '"+appUser+"' AND xact_start IS NOT NULL")
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// heardOut logs in, sends the last words, shuts down the sending side and reads to the end.
func heardOut(t *testing.T, url string, words lastWords) string {
	t.Helper()
	conn := loggedIn(t, url)
	defer conn.Close()
	var out []byte
	if len(words.first) > 0 {
		if _, err := conn.Write(words.first); err != nil {
			t.Fatal(err)
		}
		out = readMessages(t, conn, words.until)
	}
	if _, err := conn.Write(words.rest); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	more, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("after %d bytes: %v", len(more), err)
	}
	if out = append(out, more...); len(out) > 10_000 {
		return digest(out)
	}
	return string(out)
}

// loggedIn lets a driver log in and takes its connection.
func loggedIn(t *testing.T, url string) net.Conn {
	t.Helper()
	pg, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	h, err := pg.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return h.Conn
}

// readMessages reads up to and with the first message of a type.
func readMessages(t *testing.T, conn net.Conn, until byte) []byte {
	t.Helper()
	var out []byte
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Fatalf("after %q: %v", out, err)
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(conn, body); err != nil {
			t.Fatalf("after %q: %v", out, err)
		}
		out = append(append(out, head...), body...)
		if head[0] == until {
			return out
		}
	}
}

// TestAClientThatSendsNoMoreBeforeItsPasswordIsAskedForItAndEnds does the same before the login.
func TestAClientThatSendsNoMoreBeforeItsPasswordIsAskedForItAndEnds(t *testing.T) {
	w := sharedWorld(t)
	parameters := "\x00\x03\x00\x00user\x00" + appUser + "\x00database\x00" + appDB + "\x00\x00"
	startup := append(binary.BigEndian.AppendUint32(nil, uint32(len(parameters)+4)), parameters...)
	for _, words := range [][]byte{startup, startup[:20], nil, []byte("\x00\x00\x00\x08\x04\xd2\x16\x2f")} {
		t.Run(fmt.Sprintf("%d bytes", len(words)), func(t *testing.T) {
			var got [2][]byte
			for i, address := range []string{w.cluster.Primary().Address(), w.proxy.Listen()} {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := conn.Write(words); err != nil {
					t.Fatal(err)
				}
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if got[i], err = io.ReadAll(conn); err != nil {
					t.Error(err)
				}
			}
			if !bytes.Equal(got[0], got[1]) {
				t.Errorf("read %q, directly %q", got[1], got[0])
			}
		})
	}
}

// TestATLSClientThatSendsNoMoreReadsItsAnswers does it with close_notify, on both sides of the proxy.
func TestATLSClientThatSendsNoMoreReadsItsAnswers(t *testing.T) {
	w := newWorld(t, setup{servers: pglocal.Options{Standbys: 1, TLS: true}})
	dir := w.cluster.Dir()
	p := w.secondProxy(t, stand.Options{
		Proxy: fmt.Sprintf("tls = \"require\"\ntls_cert_file = %q\ntls_key_file = %q\nserver_tls = \"verify-full\"\nserver_tls_ca_file = %q\n",
			dir+"/server.crt", dir+"/server.key", w.cluster.CAFile()),
	})
	direct, through := w.direct(w.cluster.Primary())+"?sslmode=require", p.URL(appUser, appPassword, appDB)+"?sslmode=require"
	mustExec(t, connect(t, direct), "CREATE TABLE halves (i int); CREATE TABLE pgbench_branches ()")
	for _, words := range lastWordsOfClients() {
		t.Run(words.name, func(t *testing.T) {
			want := heardOut(t, direct, words) + "\n" + left(t, w)
			if got := heardOut(t, through, words) + "\n" + left(t, w); got != want {
				t.Errorf("read\n%q\ndirectly:\n%q", got, want)
			}
		})
	}
}
