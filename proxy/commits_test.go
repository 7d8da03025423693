package proxy

import "testing"

// What counts is what the primary has acknowledged of rows that were written: not reads, not what
// failed, wrote nothing, was rolled back or came from a standby.
func TestCommitsCountsAcknowledgedWrites(t *testing.T) {
	for _, test := range []struct {
		name  string
		turns []string // turn, answer, turn, answer …
		want  uint64
	}{
		{"insert", []string{`Query "insert into t values (1)"`, `Complete "INSERT 0 1" | Ready I`}, 1},
		{"update", []string{`Query "update t set a = 1"`, `Complete "UPDATE 10" | Ready I`}, 1},
		{"delete", []string{`Query "delete from t"`, `Complete "DELETE 2" | Ready I`}, 1},
		{"merge", []string{`Query "merge into t using u on true when matched then delete"`, `Complete "MERGE 2" | Ready I`}, 1},
		{"update of no row", []string{`Query "update t set a = 1"`, `Complete "UPDATE 0" | Ready I`}, 0},
		{"insert of no row", []string{`Query "insert into t select 1 where false"`, `Complete "INSERT 0 0" | Ready I`}, 0},
		{"extended", []string{`Run "insert into t values (1)" | Sync`, `ParseComplete | BindComplete | NoData | Complete "INSERT 0 1" | Ready I`}, 1},
		{"pipeline of two, one transaction", []string{`Run "insert into t values (1)" | Run "insert into t values (2)" | Sync`,
			`ParseComplete | BindComplete | NoData | Complete "INSERT 0 1" | ParseComplete | BindComplete | NoData | Complete "INSERT 0 1" | Ready I`}, 1},
		{"pipeline that fails behind a write", []string{`Run "insert into t values (1)" | Run "insert into t values (2)" | Sync`,
			`ParseComplete | BindComplete | NoData | Complete "INSERT 0 1" | Error ERROR 53100 "disk full" | Ready I`}, 0},
		{"an error", []string{`Query "insert into t values (1)"`, `Error ERROR 53100 "disk full" | Ready I`}, 0},
		{"a read on the primary", []string{`Query "select nextval('s')"`, `Result "1" | Ready I`}, 0},
		{"a transaction", []string{`Query "begin"`, `Complete "BEGIN" | Ready T`, `Query "insert into t values (1)"`, `Complete "INSERT 0 1" | Ready T`,
			`Query "select nextval('s')"`, `Result "1" | Ready T`, `Query "commit"`, `Complete "COMMIT" | Ready I`}, 1},
		{"a transaction that read only", []string{`Query "begin"`, `Complete "BEGIN" | Ready T`, `Query "select 1"`, `Result "1" | Ready T`,
			`Query "commit"`, `Complete "COMMIT" | Ready I`}, 0},
		{"a transaction that is open", []string{`Query "begin"`, `Complete "BEGIN" | Ready T`, `Query "insert into t values (1)"`, `Complete "INSERT 0 1" | Ready T`}, 0},
		{"rolled back", []string{`Query "begin"`, `Complete "BEGIN" | Ready T`, `Query "insert into t values (1)"`, `Complete "INSERT 0 1" | Ready T`,
			`Query "rollback"`, `Complete "ROLLBACK" | Ready I`}, 0},
		{"COMMIT of a failed transaction", []string{`Query "begin"`, `Complete "BEGIN" | Ready T`, `Query "insert into t values (1)"`, `Complete "INSERT 0 1" | Ready T`,
			`Query "select 1/0"`, `Error ERROR 22012 "division by zero" | Ready E`, `Query "commit"`, `Complete "ROLLBACK" | Ready I`}, 0},
		{"one after a rollback", []string{`Query "begin; insert into t values (1)"`, `Complete "BEGIN" | Complete "INSERT 0 1" | Ready T`,
			`Query "rollback; begin; commit"`, `Complete "ROLLBACK" | Complete "BEGIN" | Complete "COMMIT" | Ready I`}, 0},
		{"a batch of two transactions, of which one fails", []string{`Query "begin; insert into t values (1); commit; insert into t values (2)"`,
			`Complete "BEGIN" | Complete "INSERT 0 1" | Complete "COMMIT" | Error ERROR 53100 "disk full" | Ready I`}, 1},
		{"COPY in", []string{`Query "copy t from stdin"`, `CopyIn`, `CopyData "1\n" | CopyDone`, `Complete "COPY 1" | Ready I`}, 1},
		{"COPY in by the extended protocol", []string{`Run "copy t from stdin" | Sync`, `ParseComplete | BindComplete | NoData | CopyIn`,
			`CopyData "1\n" | CopyDone | Sync`, `Complete "COPY 1" | Ready I`}, 1},
		{"COPY out", []string{`Query "begin; copy t to stdout"`, `Complete "BEGIN" | CopyOut | CopyData "1\n" | CopyDone | Complete "COPY 1" | Ready T`,
			`Query "commit"`, `Complete "COMMIT" | Ready I`}, 0},
		{"tags that nobody knows", []string{`Query "insert into t values (1)"`, `Raw "C\x00\x00\x00\x04" | Complete "INVENTED 12" | Complete "COMMIT PREPARED" | Ready I`}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, nil)
			c := w.login()
			for i := 0; i < len(test.turns); i += 2 {
				c.send(encode(t, test.turns[i], false))
				srv := w.servers[len(w.servers)-1]
				srv.link.in = append(srv.link.in, encode(t, test.turns[i+1], true)...)
				w.settle()
			}
			if n := w.p.Commits("main"); n != test.want {
				t.Errorf("%d commits, want %d; the client has read %v", n, test.want, renderMessages(c.received(), true))
			}
		})
	}
}

func TestCommitsOfAStandbyAndOfNobodyAreNone(t *testing.T) {
	w := newWorld(t, nil)
	c := w.login()
	c.send(encode(t, `Query "select 1"`, false))
	srv := w.servers[len(w.servers)-1]
	if srv.node == 1 {
		t.Fatal("the read went to the primary")
	}
	srv.link.in = append(srv.link.in, encode(t, `Complete "INSERT 0 1" | Ready I`, true)...)
	w.settle()
	if n := w.p.Commits("main") + w.p.Commits("other"); n != 0 {
		t.Errorf("%d commits", n)
	}
}
