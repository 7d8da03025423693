package operation

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// folders are those of CST_VERSIONS, which scripts/postgres-versions prints.
func folders(t *testing.T) []string {
	t.Helper()
	list := os.Getenv("CST_VERSIONS")
	if list == "" {
		t.Skip("CST_VERSIONS names no servers of other versions: `make versions` fetches them")
	}
	return filepath.SplitList(list)
}

// majorOf is 10 for …/10.23.0.
func majorOf(t *testing.T, dir string) int {
	t.Helper()
	digits, _, _ := strings.Cut(filepath.Base(dir), ".")
	n, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatalf("%s: want a folder whose name begins with a version", dir)
	}
	return n
}

// newestCopied is the newest major version that the installed pg_basebackup copies.
func newestCopied(t *testing.T) int {
	t.Helper()
	program, err := pglocal.Program("pg_basebackup")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscanf(string(out), "pg_basebackup (PostgreSQL) %d", &n); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return n
}

// controlData prints of pg_control what the scripts read. Versions differ in their layout, so the
// installed pg_controldata does not do; the fetched servers have none.
const controlData = `case "$*" in *--version*) echo "pg_controldata (PostgreSQL) $version"; exit ;; esac
file=$2/global/pg_control
number() { od -A n -t u$2 -j $1 -N $2 "$file" | tr -d ' '; }
lsn() { set -- $(od -A n -t x4 -j $1 -N 8 "$file"); printf '%X/%X\n' 0x$2 0x$1; }
copy=40
[ "${version%%.*}" -gt 10 ] || copy=48 # the previous checkpoint's position comes before
echo "Database system identifier:           $(number 0 8)"
case $(number 16 4) in
0) state='starting up' ;; 1) state='shut down' ;; 2) state='shut down in recovery' ;; 3) state='shutting down' ;;
4) state='in crash recovery' ;; 5) state='in archive recovery' ;; 6) state='in production' ;;
esac
echo "Database cluster state:               $state"
echo "Latest checkpoint location:           $(lsn 32)"
echo "Latest checkpoint's TimeLineID:       $(number $((copy + 8)) 4)"
`

// programsOf is a folder with the server programs of dir, and stand-ins for the client programs, which
// the fetched packages lack: pg_basebackup is the installed one, which copies its own version and older
// ones; there is no pg_rewind.
func programsOf(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(dir, "bin", "postgres"), "--version").Output()
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	copier, err := pglocal.Program("pg_basebackup")
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("/tmp", "cst-operation-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	for name, script := range map[string]string{
		"postgres":       "exec '" + filepath.Join(dir, "bin", "postgres") + "' \"$@\"\n",
		"pg_ctl":         "exec '" + filepath.Join(dir, "bin", "pg_ctl") + "' \"$@\"\n",
		"pg_basebackup":  "exec '" + copier + "' \"$@\"\n",
		"pg_rewind":      "echo 'there is no pg_rewind of this version here' >&2; exit 1\n",
		"pg_controldata": "version=" + strings.Fields(string(out))[2] + "\n" + controlData,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return folder
}

// versioned is a stage whose servers are of another version than the installed one.
type versioned struct {
	*stage
	major   int
	a, b, d *pglocal.Node
}

// Every operation with real servers of each version, in the order of their lives.
func TestServersOfEveryVersionAreOperated(t *testing.T) {
	for _, dir := range folders(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			settings := rewindable()
			settings["wal_retrieve_retry_interval"] = "'100ms'"
			v := versioned{major: majorOf(t, dir)}
			v.stage = newStage(t, pglocal.Options{Standbys: 2, Programs: filepath.Join(dir, "bin"), Settings: settings})
			v.a, v.b, v.d = v.pg.Nodes()[0], v.pg.Nodes()[1], v.pg.Nodes()[2]
			programs := programsOf(t, dir)
			v.Executor = v.executor(func(n *Node) { n.BinDir = programs })
			t.Cleanup(v.showLogs)
			v.sql(v.a, "CREATE TABLE t (x int)")
			for _, part := range []struct {
				name string
				do   func(*testing.T)
			}{
				{"is read", v.isRead},
				{"cut off and released", v.cutOffAndReleased},
				{"stopped and revived", v.stoppedAndRevived},
				{"switched over", v.switchedOver},
				{"failed over", v.failedOver},
				{"bears slots", v.bearsSlots},
				{"copied", v.copied},
			} {
				began := time.Now()
				part.do(t)
				if t.Failed() {
					t.Fatalf("%s: failed", part.name)
				}
				t.Logf("%s: %s", part.name, time.Since(began).Round(time.Millisecond))
			}
		})
	}
}

// showLogs shows how the servers' logs end, when the test has failed.
func (v versioned) showLogs() {
	if !v.t.Failed() {
		return
	}
	for _, n := range v.pg.Nodes() {
		for _, log := range []string{n.LogFile, filepath.Join(n.Dir, "cstproxy-start.log")} {
			text, err := os.ReadFile(log)
			v.t.Logf("%s: %v\n%s", log, err, text[max(0, len(text)-3000):])
		}
	}
}

func (v versioned) ask(n *pglocal.Node) *pgnode.Conn {
	v.t.Helper()
	c, err := v.nodes[topology.NodeID(n.ID)].SQL.Connect(v.within())
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { c.Close(v.t.Context()) })
	return c
}

// arrives has a row written on one server and read on others.
func (v versioned) arrives(from *pglocal.Node, to ...*pglocal.Node) {
	v.t.Helper()
	v.sql(from, "INSERT INTO t VALUES (1)")
	want := v.sql(from, "SELECT count(*) FROM t")
	for _, n := range to {
		v.reads(n, "SELECT count(*) FROM t", want)
	}
}

// isRead is everything that is asked of servers that nobody has touched.
func (v versioned) isRead(t *testing.T) {
	v.arrives(v.a, v.b, v.d)
	ca, cb, ctx := v.ask(v.a), v.ask(v.b), v.within()
	for range 3 { // the first is not prepared
		pa, err := ca.Probe(ctx)
		if err != nil || pa.Role != topology.RolePrimary || pa.Version/10000 != v.major || pa.SystemID == 0 || pa.Timeline != 1 ||
			pa.Insert < pa.Write || pa.Write < pa.Flush || pa.Flush == 0 || pa.Settings.MaxConnections != 100 {
			t.Fatalf("%+v, %v", pa, err)
		}
		pb, err := cb.Probe(ctx)
		if err != nil || pb.Role != topology.RoleStandby || pb.SystemID != pa.SystemID || pb.Timeline != 1 || pb.Replay == 0 || pb.Receive == 0 ||
			pb.Receiver != "streaming" || !pb.Receiving || !pb.Complete || pb.Upstream != v.a.Address() || pb.Marker != (pgnode.Marker{}) {
			t.Fatalf("%+v, %v", pb, err)
		}
		for _, w := range append(pa.Warnings, pb.Warnings...) {
			if strings.HasPrefix(w, "wal_keep") || strings.Contains(w, "pg_rewind") {
				t.Errorf("a warning without a reason: %s", w)
			}
		}
	}
	fb, err := cb.Facts(ctx)
	if err != nil || !fb.Standby || !fb.Streaming || !fb.Receiver || fb.Upstream != v.a.Address() || fb.ReceiverPID == 0 {
		t.Fatalf("%+v, %v", fb, err)
	}
	if p, err := ca.Position(ctx); err != nil || p.Timeline != 1 || p.Insert < p.Flush {
		t.Errorf("%+v, %v", p, err)
	}
	if r, err := cb.Replayed(ctx); err != nil || !r.Standby || r.Received != 1 || r.Replay == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if rows, err := ca.Replication(ctx); err != nil || len(rows) != 2 || rows[0].AppName != "node2" || rows[0].State != "streaming" {
		t.Errorf("%+v, %v", rows, err)
	}
	if st, err := ca.Streams(ctx); err != nil || !st.Primary || len(st.Senders) != 2 || st.Senders[0].Flush == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if size, err := ca.Size(ctx); err != nil || size < 1<<20 {
		t.Errorf("%d, %v", size, err)
	}
	if limit, err := ca.SlotLimit(ctx); err != nil || limit >= 0 {
		t.Errorf("%d, %v", limit, err)
	}
	v.heartbeats(t, ca)
	for _, n := range []*pglocal.Node{v.a, v.b} {
		h, err := v.nodes[topology.NodeID(n.ID)].hostFacts(ctx)
		if err != nil || h.Problem != "" || h.Major != v.major || h.Processes == 0 || h.Standby != (n == v.b) || h.SystemID != v.systemID(n) {
			t.Errorf("%+v, %v", h, err)
		}
	}
}

func (v versioned) systemID(n *pglocal.Node) uint64 {
	v.t.Helper()
	id, err := strconv.ParseUint(v.sql(n, "SELECT system_identifier FROM pg_control_system()"), 10, 64)
	if err != nil {
		v.t.Fatal(err)
	}
	return id
}

func (v versioned) heartbeats(t *testing.T, ca *pgnode.Conn) {
	ctx := v.within()
	q, err := pgnode.New(pgnode.Config{Host: v.a.Host, Port: v.a.Port, User: "postgres", Password: pglocal.DefaultPassword,
		Database: pgnode.HeartbeatDatabase, SSLMode: "disable", Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := q.MakeHeartbeat(ctx); err != nil {
			t.Fatal(err)
		}
	}
	c, err := q.Heart(20 * time.Second).Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	p := c.Beat(ctx, pgnode.Heartbeat{ID: 1, Epoch: 1, Member: "m"})
	if p.Writes != pgnode.Commits || p.LSN == 0 {
		t.Fatalf("%+v", p)
	}
	stamped, err := ca.Stamp(ctx, "x")
	if err != nil || stamped <= p.LSN {
		t.Errorf("%s after %s, %v", stamped, p.LSN, err)
	}
	v.reads(v.a, "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= '"+p.LSN.String()+"'", "2")
	if names, err := ca.Confirmed(ctx, p.LSN); err != nil || len(names) != 2 {
		t.Errorf("%v, %v", names, err)
	}
}

// cutOffAndReleased: a recruited standby gets nothing and answers reads; after the undo it has everything.
func (v versioned) cutOffAndReleased(t *testing.T) {
	r := v.must(action(decide.Recruit, v.b, 2, record.Fence))
	if r.Fact.Recruited != 2 || r.Fact.Streaming || r.Fact.Role != topology.RoleStandby || r.Fact.Receive == 0 && v.major >= 13 {
		t.Fatalf("%+v", r.Fact)
	}
	v.arrives(v.a, v.d)
	if had := v.sql(v.b, "SELECT count(*) FROM t"); had != "1" {
		t.Errorf("cut off, and has %s rows", had)
	}
	r = v.must(from(action(decide.Release, v.b, 2, record.Undo), v.a))
	if r.Fact.Recruited != 0 || !r.Fact.Streaming || r.Fact.Upstream != topology.NodeID(v.a.ID) {
		t.Fatalf("%+v", r.Fact)
	}
	if conninfo := v.conninfoOf(v.b); strings.Contains(conninfo, "sslmode") || !strings.Contains(conninfo, "application_name") {
		t.Errorf("the standby's own connection string was replaced by the configuration's: %s", conninfo)
	}
	v.arrives(v.a, v.b, v.d)
	for _, late := range []decide.Action{action(decide.Recruit, v.b, 2, record.Fence), action(decide.PromoteIt, v.b, 2, record.Promote)} {
		if result := v.fails(late, ""); !result.Refused {
			t.Errorf("%+v", result)
		}
	}
	v.must(mode(action(decide.Stop, v.b, 2, record.Done), "fast"))
	v.must(from(action(decide.Follow, v.b, 2, record.Done), v.a)) // of a stopped server: by its files
	v.arrives(v.a, v.b)
}

// conninfoOf is the line of primary_conninfo in a server's files.
func (v versioned) conninfoOf(n *pglocal.Node) string {
	v.t.Helper()
	name := "postgresql.auto.conf"
	if v.major < 12 {
		name = "recovery.conf"
	}
	text, err := os.ReadFile(filepath.Join(n.Dir, name))
	if err != nil {
		v.t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(text), "primary_conninfo")
	line, _, _ = strings.Cut(line, "\n")
	return line
}

// stoppedAndRevived: a switchover that is undone after the old primary was stopped.
func (v versioned) stoppedAndRevived(t *testing.T) {
	if v.major < 12 { // later ones have the same signal as the installed one
		v.a.Hang()
		hung := mode(action(decide.Stop, v.a, 2, record.Done), "fast")
		hung.Timeout = 5 * time.Second
		v.fails(hung, "does not end")
		if v.a.Standby() {
			t.Error("a primary that goes on was left with recovery.conf")
		}
		v.must(action(decide.Stop, v.a, 2, record.Done), action(decide.Revive, v.a, 2, record.Done))
		v.arrives(v.a, v.b, v.d)
	}
	r := v.must(mode(action(decide.Stop, v.a, 3, record.Fence), "fast"))
	if !r.Fact.Stopped || r.Fact.Write == 0 || r.Host == nil || !r.Host.Standby || r.Host.State != "shut down" || r.Fact.History.Timeline != 1 {
		t.Fatalf("%+v, %+v", r.Fact, r.Host)
	}
	r = v.must(action(decide.Revive, v.a, 3, record.Undo))
	if r.Fact.Role != topology.RolePrimary {
		t.Fatalf("%+v", r.Fact)
	}
	v.reads(v.a, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", "2")
	v.arrives(v.a, v.b, v.d)
}

// switchedOver: from a to b by SQL where the version can, past timelines that may have been used; d follows,
// and a, which was stopped in order, becomes a standby by its files.
func (v versioned) switchedOver(t *testing.T) {
	v.must(mode(action(decide.Stop, v.a, 4, record.Fence), "fast"))
	v.must(action(decide.Recruit, v.d, 4, record.Fence), action(decide.Recruit, v.b, 4, record.Fence))
	promote := action(decide.PromoteIt, v.b, 4, record.Promote)
	promote.Timeline = 4
	r := v.must(promote)
	if r.Fact.Role != topology.RolePrimary || r.Fact.History.Timeline != 4 || !r.Fact.History.Known() {
		t.Fatalf("%+v", r.Fact)
	}
	for _, n := range []*pglocal.Node{v.d, v.a} {
		r = v.must(from(action(decide.Follow, n, 4, record.After), v.b))
		if !r.Fact.Streaming || r.Fact.Upstream != topology.NodeID(v.b.ID) || r.Fact.Recruited != 0 || r.Fact.Role != topology.RoleStandby {
			t.Fatalf("%+v", r.Fact)
		}
	}
	v.arrives(v.b, v.a, v.d)
	if o, err := v.ask(v.a).Probe(v.within()); err != nil || o.Timeline != 4 || o.Upstream != v.b.Address() || o.Slot != "cstproxy_node1" || !o.Marker.Released {
		t.Errorf("%+v, %v", o, err)
	}
	v.reads(v.b, "SELECT count(*) FROM pg_replication_slots WHERE active", "2")
}

// failedOver: b crashes while it writes, nobody stops it, and a is promoted by its host alone. b is started as a
// standby, although nothing in its directory says so.
func (v versioned) failedOver(t *testing.T) {
	v.must(action(decide.Recruit, v.d, 5, record.Fence), action(decide.Recruit, v.a, 5, record.Fence))
	v.sql(v.b, "INSERT INTO t SELECT 2 FROM generate_series(1, 1000)")
	ctx := v.within()
	crash := script{text: `programs pg_ctl; stop_server "$pgdata" immediate 10`}
	if err := v.act(ctx, action(decide.Look, v.b, 4, record.Done), crash); err != nil {
		t.Fatal(err)
	}
	if err := v.act(ctx, action(decide.PromoteIt, v.a, 5, record.Promote), script{text: promoteScript, words: []string{"epoch=5", "from=4", "timeline=7"}}); err != nil {
		t.Fatalf("%v\n%s", err, v.said())
	}
	if o, err := v.ask(v.a).AwaitPrimary(ctx, 6); err != nil || o.Timeline != 7 || !o.History.Known() {
		t.Fatalf("%+v, %v", o, err)
	}
	v.must(from(action(decide.Follow, v.d, 5, record.After), v.a))
	v.arrives(v.a, v.d)
	if had := v.sql(v.d, "SELECT count(*) FROM t WHERE x = 2"); had != "0" {
		t.Errorf("%s rows of the old primary arrived", had)
	}
	v.settles(t)
	if r := v.must(action(decide.Start, v.b, 5, record.Done)); r.Fact.Role != topology.RoleStandby || !v.b.Standby() {
		t.Errorf("%+v", r.Fact)
	}
}

// settles: the new primary has a checkpoint on its timeline where pg_rewind needs one.
func (v versioned) settles(t *testing.T) {
	c := &record.Cluster{Epoch: record.Epoch{Number: 5, Primary: topology.NodeID(v.a.ID)}, LastEpoch: 5, LastOperation: 5}
	if settled, err := v.Settle(v.within(), c); !settled || err != nil {
		t.Error(settled, err)
	}
	if last := v.sql(v.a, "SELECT timeline_id FROM pg_control_checkpoint()"); last != "7" && v.major < 16 {
		t.Errorf("the last checkpoint is on timeline %s", last)
	}
}

// bearsSlots: those that nobody wants are dropped, and nobody else's.
func (v versioned) bearsSlots(t *testing.T) {
	c := &record.Cluster{Epoch: record.Epoch{Number: 5, Primary: topology.NodeID(v.a.ID)}, LastEpoch: 5, LastOperation: 5}
	if lost := v.step(NewSlots(v.Executor), c); len(lost) != 0 {
		t.Error(lost)
	}
	ctx, conn := v.within(), v.ask(v.a)
	v.sql(v.a, "SELECT pg_create_physical_replication_slot('theirs', true)")
	for _, want := range []map[string]topology.LSN{{"cstproxy_node3": 0, "cstproxy_gone": 0}, {"cstproxy_node3": 0}} {
		have, err := conn.Slots(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.KeepSlots(ctx, have, want); err != nil {
			t.Fatal(err)
		}
	}
	v.reads(v.a, slotsSQL, "cstproxy_node3 theirs")
	if v.major >= 11 {
		o, err := conn.Probe(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.AdvanceSlot(ctx, "theirs", o.Flush); err != nil {
			t.Error(err)
		}
		v.reads(v.a, "SELECT restart_lsn = '"+o.Flush.String()+"' FROM pg_replication_slots WHERE slot_name = 'theirs'", "t")
	}
}

// copied: the server that was killed has gone another way, and is made anew.
func (v versioned) copied(t *testing.T) {
	if newest := newestCopied(t); v.major > newest {
		t.Logf("NOT TESTED: a copy of version %d, by the pg_basebackup of %d", v.major, newest)
		return
	}
	r := v.must(from(action(decide.Rebuild, v.b, 5, record.Done), v.a))
	if r.Fact.Role != topology.RoleStandby || !r.Fact.Streaming || r.Fact.Upstream != topology.NodeID(v.a.ID) {
		t.Fatalf("%+v", r.Fact)
	}
	replace := mode(from(action(decide.Rebuild, v.b, 5, record.Done), v.a), "replace")
	replace.Operation++
	v.must(replace) // by a trial, which reads how the copy begins
	v.arrives(v.a, v.b)
	v.reads(v.b, "SELECT count(*), current_setting('cluster_name') FROM t WHERE x = 2", "0\t"+v.b.Name)
}

// A minor version is taken into use on one host after the other: the installed one and an older one of the
// same major version serve one another, there and back.
func TestMinorVersionsAreMixed(t *testing.T) {
	mixed := false
	for _, dir := range folders(t) {
		if majorOf(t, dir) != newestCopied(t) {
			continue
		}
		mixed = true
		t.Run(filepath.Base(dir), func(t *testing.T) {
			v := versioned{major: majorOf(t, dir)}
			v.stage = newStage(t, pglocal.Options{Standbys: 1, StandbyPrograms: filepath.Join(dir, "bin")})
			v.a, v.b = v.pg.Nodes()[0], v.pg.Nodes()[1]
			programs := programsOf(t, dir)
			v.Executor = v.executor(func(n *Node) {
				if int(n.ID) == v.b.ID {
					n.BinDir = programs
				}
			})
			t.Cleanup(v.showLogs)
			if one, other := v.sql(v.a, "SHOW server_version_num"), v.sql(v.b, "SHOW server_version_num"); one == other {
				t.Skipf("both are %s: nothing can be mixed", one)
			}
			v.sql(v.a, "CREATE TABLE t (x int)")
			v.arrives(v.a, v.b)
			from, to := v.a, v.b
			for epoch := topology.Epoch(2); epoch < 4; epoch++ {
				v.hand(epoch, from, to)
				from, to = to, from
			}
		})
	}
	if !mixed {
		t.Skip("CST_VERSIONS has no server of the installed major version")
	}
}

// hand is a switchover of two servers.
func (v versioned) hand(epoch topology.Epoch, old, next *pglocal.Node) {
	v.t.Helper()
	v.must(mode(action(decide.Stop, old, epoch, record.Fence), "fast"))
	v.must(action(decide.Recruit, next, epoch, record.Fence), action(decide.PromoteIt, next, epoch, record.Promote))
	r := v.must(from(action(decide.Follow, old, epoch, record.After), next))
	if !r.Fact.Streaming || r.Fact.Role != topology.RoleStandby || r.Fact.History.Timeline != topology.Timeline(epoch) {
		v.t.Fatalf("%+v", r.Fact)
	}
	v.arrives(next, old)
}
