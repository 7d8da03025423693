package proxy

import (
	"testing"
)

// FuzzClientBytes feeds a session whatever bytes after its login, and servers that answer as
// PostgreSQL does: it may end, but neither panic nor leave its servers dirty or lost, nor may what
// it did reach the next client.
func FuzzClientBytes(f *testing.F) {
	for _, notation := range []string{`Query "select 1"`, `Run "select 1" | Sync`, `Parse "a" "select $1" | Describe S "a" | Bind "" "a" "x" | Execute "" 1 | Flush | Execute "" 1 | Close S "a" | Sync`,
		`Query "copy t0 from stdin" | CopyData "1\n" | CopyDone | Terminate`, `Run "copy t0 from stdin" | Sync | CopyData "x" | CopyFail "y" | Sync`, `Query "begin" | Query "select 1/0" | Run "deallocate all" | Sync | Query "rollback"`} {
		f.Add(encode(f, notation, false), uint64(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		w := newWorld(t, func(c *Config) { c.PoolSize, c.MaxPrepared, c.MaxTurnBytes = 1, 2, 4096 })
		w.catalog.knowledge = modelKnowledge
		db := &modelDB{rows: map[string]int{}}
		w.model = func(srv *fakeServer) peer {
			m := newModelServer(db)
			m.readOnly = srv.node != 1
			return m
		}
		w.reports = map[string]string{"TimeZone": "Etc/UTC"}
		w.cut = randomCuts(seed)
		c := w.login()
		c.send(b)
		c.link.eof = true
		w.settle()
		checkNextClient(t, w)
	})
}

// FuzzStartupBytes feeds whatever bytes to a connection that nobody has logged in on.
func FuzzStartupBytes(f *testing.F) {
	for _, notation := range []string{`Startup 3.0`, `SSLRequest | GSSENCRequest | Startup 3.2 "options" "-c a=b"`, `CancelRequest 1 "abcd"`, `Startup 3.0 "user" "scram" | Raw "p\x00\x00\x00\x20SCRAM-SHA-256\x00\x00\x00\x00\x05n,,n="`} {
		f.Add(encode(f, notation, false), uint64(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		w := newWorld(t, nil)
		w.model = func(*fakeServer) peer { return newModelServer(&modelDB{rows: map[string]int{}}) }
		w.cut = randomCuts(seed)
		c := w.accept(ListenAuto)
		c.send(b)
		c.link.eof = true
		w.settle()
		if n := len(w.p.sessions) + len(w.p.keys); n != 0 {
			t.Errorf("%d sessions and keys are left behind", n)
		}
	})
}

// checkNextClient logs a second client in: it must find the world as a first one does.
func checkNextClient(t *testing.T, w *world) {
	for _, k := range w.strikes {
		k.done(nil)
	}
	w.settle()
	c := w.login()
	c.send(encode(t, `Query "select 1" | Query "show timezone; show application_name" | Bind "" "" | Sync | Bind "" "a" | Sync`, false))
	for range 40 {
		w.advance(1e9) // a server that was given up is replaced
	}
	got := renderMessages(c.received(), true)
	want := []string{`Columns "?column?"`, `Row "1"`, `Complete "SELECT 1"`, `Ready I`,
		`Columns "TimeZone"`, `Row "Etc/UTC"`, `Complete "SHOW"`, `Columns "application_name"`, `Row ""`, `Complete "SHOW"`, `Ready I`,
		`Error ERROR 26000 "unnamed prepared statement does not exist"`, `Ready I`, `Error ERROR 26000 "prepared statement \"a\" does not exist"`, `Ready I`}
	if len(got) != len(want) {
		t.Fatalf("the next client reads %q", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("the next client reads %q, want %q", got[i], want[i])
		}
	}
	if n := len(w.p.sessions); n != 1 {
		t.Errorf("%d sessions", n)
	}
}
