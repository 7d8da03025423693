package operation

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"go.uber.org/zap/zaptest"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/remote/sshlocal"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/ha/vip"
)

// machine is a host on a segment: a network namespace that a process of its own holds, so that it goes
// with the test, and a real sshd, whose sessions are in it.
type machine struct {
	t   *testing.T
	net string // its namespace's path
	pid int
	ssh *sshlocal.Server
}

func (m *machine) ip(words ...string) string {
	m.t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + m.net, "ip"}, words...)...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("ip %s: %v: %s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

func (m *machine) has(v vip.VIP) bool {
	m.t.Helper()
	return strings.Contains(m.ip("-o", "addr", "show", "to", v.Addr().String()), v.Addr().String())
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this test makes network namespaces, which needs root")
	}
	for _, tool := range []string{"ip", "nsenter", "unshare", "arping"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("this test needs %s: scripts/install-deps test installs it", tool)
		}
	}
	holder := exec.Command("unshare", "--net", "cat")
	if _, err := holder.StdinPipe(); err != nil { // its end is cat's, and comes with ours at the latest
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() })
	m := &machine{t: t, pid: holder.Process.Pid, net: fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid)}
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patienceOfTests); ; time.Sleep(time.Millisecond) {
		if theirs, err := os.Readlink(m.net); err == nil && theirs != ours {
			break
		}
		if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.pid)); err != nil || strings.Contains(string(state), ") Z ") {
			t.Skip("this test makes network namespaces, which this machine does not let it")
		}
		if time.Now().After(end) {
			t.Fatal("no network namespace was made")
		}
	}
	m.ip("link", "set", "lo", "up")
	return m
}

// segment is nodes 1 to 3, on hosts 10.98.0.1 to 3, and a client on 10.98.0.9.
type segment struct {
	t      *testing.T
	hosts  map[topology.NodeID]*machine
	client *machine
	remote map[topology.NodeID]*remote.Host
	e      *Executor
	mu     sync.Mutex
	lines  []string
}

func newSegment(t *testing.T) *segment {
	t.Helper()
	s := &segment{t: t, hosts: map[topology.NodeID]*machine{}, remote: map[topology.NodeID]*remote.Host{}}
	bridge := newMachine(t)
	bridge.ip("link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	bridge.ip("link", "set", "br0", "up")
	plug := func(m *machine, number int) {
		port := fmt.Sprint("p", number)
		bridge.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(m.pid))
		bridge.ip("link", "set", port, "master", "br0", "up")
		m.ip("addr", "add", fmt.Sprintf("10.98.0.%d/24", number), "dev", "eth0")
		m.ip("link", "set", "eth0", "up")
	}
	var nodes []Node
	for id := topology.NodeID(1); id <= 3; id++ {
		m := newMachine(t)
		plug(m, int(id))
		m.ssh = sshlocal.ForTest(t, `ForceCommand exec nsenter --net=`+m.net+` sh -c "$SSH_ORIGINAL_COMMAND"`)
		s.hosts[id] = m
		nodes = append(nodes, s.node(id))
	}
	s.client = newMachine(t)
	plug(s.client, 9)
	began := time.Now()
	e, err := New(Config{Fleet: "f", Cluster: "c", Nodes: nodes, Now: func() time.Duration { return time.Since(began) },
		Addresses: Addresses{Write: address(t, vip.Write, "10.98.0.40/24"), Read: address(t, vip.Read, "10.98.0.45/24"), Segment: vip.NewLocal(zaptest.NewLogger(t))},
		Progress: func(_ decide.Action, line string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lines = append(s.lines, line)
		}}, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	s.e = e
	return s
}

func address(t *testing.T, kind vip.Kind, text string) vip.VIP {
	t.Helper()
	p, err := vip.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return vip.VIP{Kind: kind, Cluster: "c", Prefix: p}
}

func (s *segment) node(id topology.NodeID) Node {
	s.t.Helper()
	m := s.hosts[id]
	c := remote.DefaultConfig()
	c.Host, c.Port, c.User, c.KeyFile, c.KnownHostsFile = m.ssh.Host, m.ssh.Port, m.ssh.User, m.ssh.KeyFile, m.ssh.KnownHosts
	dir := s.t.TempDir()
	for _, open := range []string{dir, filepath.Dir(dir)} { // a login may be somebody else's
		if err := os.Chmod(open, 0o777); err != nil {
			s.t.Fatal(err)
		}
	}
	c.Dir = filepath.Join(dir, "ratchets")
	host, err := remote.New(c, zaptest.NewLogger(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := host.Run(ctx); err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(func() { cancel(); wg.Wait() })
	installing, enough := context.WithTimeout(ctx, patienceOfTests)
	defer enough()
	if err := host.Install(installing); err != nil {
		s.t.Fatalf("%v\n%s", err, m.ssh.Log())
	}
	s.remote[id] = host
	q, err := pgnode.New(pgnode.Config{Host: "127.0.0.1", Port: 1, User: "nobody", Password: "none", Database: "postgres", SSLMode: "disable", Timeout: time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	return Node{Node: topology.Node{ID: id, Host: fmt.Sprintf("10.98.0.%d", id), Port: 5432, OSUser: "postgres", PGData: "/nowhere"},
		SQL: q, Host: host, Login: "root", Elevate: []string{"env"}}
}

// on says which hosts have a VIP.
func (s *segment) on(v vip.VIP) []topology.NodeID {
	s.t.Helper()
	var list []topology.NodeID
	for id, m := range s.hosts {
		if m.has(v) {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return list
}

func (s *segment) expect(when string, v vip.VIP, want ...topology.NodeID) {
	s.t.Helper()
	if got := s.on(v); !slices.Equal(got, want) {
		s.t.Fatalf("%s: the %s VIP is on %v, want %v", when, v.Kind, got, want)
	}
}

func vipAction(verb decide.Verb, id topology.NodeID, epoch topology.Epoch, step record.Step) decide.Action {
	return decide.Action{Verb: verb, Node: id, Operation: 1, Epoch: epoch, Step: step, Timeout: 20 * time.Second}
}

func TestAnOperationMovesTheWriteVIPUnderItsRatchet(t *testing.T) {
	t.Parallel()
	s := newSegment(t)
	do := func(a decide.Action) (decide.Result, Report) { return s.e.Do(t.Context(), a) }
	must := func(a decide.Action) Report {
		t.Helper()
		r, seen := do(a)
		if r.Err != "" {
			t.Fatalf("%s on node %d: %s", a.Verb, a.Node, r.Err)
		}
		return seen
	}
	write := s.e.cfg.Addresses.Write
	if r := must(vipAction(decide.TakeVIP, 1, 2, record.After)); !r.VIPKnown || r.Fact.NoVIP {
		t.Errorf("after it was taken: %+v", r)
	}
	s.expect("epoch 2", write, 1)
	if _, r := do(vipAction(decide.Look, 1, 2, record.After)); !r.VIPKnown || r.Fact.NoVIP {
		t.Errorf("a look at its holder: %+v", r)
	}
	if _, r := do(vipAction(decide.Look, 2, 2, record.After)); !r.VIPKnown || !r.Fact.NoVIP {
		t.Errorf("a look at somebody else: %+v", r)
	}
	// The next epoch: off the old primary while it is fenced, whose stop fails here for want of a
	// server, and onto the new one.
	must(vipAction(decide.DropVIP, 1, 3, record.Fence))
	s.expect("fenced", write)
	must(vipAction(decide.TakeVIP, 2, 3, record.After))
	must(vipAction(decide.TakeVIP, 2, 3, record.After))
	s.expect("epoch 3", write, 2)
	// A task of epoch 3 and the leader in quiet times act for the same holder: neither refuses the other.
	must(vipAction(decide.TakeVIP, 2, 3, record.Done+17))
	must(vipAction(decide.TakeVIP, 2, 3, record.After))
	for _, late := range []decide.Action{vipAction(decide.TakeVIP, 1, 2, record.Done+9), vipAction(decide.DropVIP, 2, 3, record.Fence)} {
		if r, _ := do(late); !r.Refused {
			t.Errorf("%s on node %d at (%d, %d) came too late, and: %+v", late.Verb, late.Node, late.Epoch, late.Step, r)
		}
	}
	s.expect("after late ones", write, 2)
	if !slices.ContainsFunc(s.lines, func(l string) bool { return strings.Contains(l, "was not asked") }) {
		t.Errorf("that nobody asked the segment is not said: %q", s.lines)
	}
	s.lines = nil
	list, err := s.e.nodes[2].addresses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	in(t, s.client, func() {
		s.e.verify(t.Context(), s.e.writeVIP(vipAction(decide.TakeVIP, 2, 3, record.After), s.e.nodes[2]), hardware(list, "eth0"))
	})
	if len(s.lines) != 1 || !strings.Contains(s.lines[0], "the segment says: alone") {
		t.Errorf("asked from the client: %q", s.lines)
	}
}

// in runs f on a thread that is in a machine, and ends with it.
func in(t *testing.T, m *machine, f func()) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { // received below
		runtime.LockOSThread() // and never unlocked: the thread goes away
		ns, err := netns.GetFromPath(m.net)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			f()
		}
		ended <- err
	}()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestVIPsAreKeptWhereTheyBelong(t *testing.T) {
	t.Parallel()
	s := newSegment(t)
	v := NewVIPs(s.e)
	write, read := s.e.cfg.Addresses.Write, s.e.cfg.Addresses.Read
	w := Wanted{Term: 4, Rotation: []topology.NodeID{2, 3}, Record: &record.Cluster{Epoch: record.Epoch{Number: 2, Primary: 1}, LastEpoch: 2}}
	step := func(when string) []vip.Action {
		t.Helper()
		done, err := v.Step(t.Context(), w)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		return done
	}
	if done := step("at first"); len(done) != 2 {
		t.Errorf("done at first: %v", done)
	}
	s.expect("at first", write, 1)
	s.expect("at first", read, 2)
	if done := step("quiet"); len(done) != 0 {
		t.Errorf("done in quiet times: %v", done)
	}
	holders := func(of vip.VIP) []string { return v.Holdings()[of.Kind].Hosts }
	if !slices.Equal(holders(write), []string{"10.98.0.1"}) || !slices.Equal(holders(read), []string{"10.98.0.2"}) {
		t.Errorf("seen in quiet times: %+v", v.Holdings())
	}

	s.hosts[3].ip("addr", "add", write.Addr().String()+"/32", "dev", "eth0") // thawed
	done := step("a duplicate")
	if !slices.Equal(holders(write), []string{"10.98.0.1", "10.98.0.3"}) {
		t.Errorf("seen of a duplicate: %+v", v.Holdings())
	}
	if s.expect("a duplicate", write, 1); len(done) != 2 || done[0].Verb != vip.Drop || done[1].Verb != vip.Announce {
		t.Errorf("done about a duplicate: %v", done)
	}

	w.Rotation = []topology.NodeID{3, 2}
	step("another order")
	s.expect("another order", read, 2)
	w.Rotation = []topology.NodeID{1, 3}
	step("its holder left the rotation")
	s.expect("its holder left the rotation", read, 3)
	w.Rotation = nil
	step("no standby")
	s.expect("no standby", read, 1)

	// A deposed leader's last command comes late.
	w.Rotation, w.Term = []topology.NodeID{2}, 5
	step("another leader")
	s.expect("another leader", read, 2)
	deposed := NewVIPs(s.e)
	if _, err := deposed.Step(t.Context(), Wanted{Term: 4, Rotation: []topology.NodeID{3}, Record: w.Record}); err == nil || !strings.Contains(err.Error(), "refuse") {
		t.Errorf("a deposed leader: %v", err)
	}
	step("after a deposed leader") // where the new one had done nothing yet, it was not refused
	s.expect("after a deposed leader", read, 2)

	// Hands off while an operation is under way, and while an operator has said so.
	s.hosts[1].ip("addr", "del", write.Addr().String()+"/32", "dev", "eth0")
	w.Record = &record.Cluster{Epoch: w.Record.Epoch, LastEpoch: 3, Operation: &record.Operation{Step: record.Fence, To: 3}}
	if done := step("an operation"); len(done) != 0 {
		t.Errorf("done in an operation: %v", done)
	}
	w.Record = &record.Cluster{Epoch: w.Record.Epoch, LastEpoch: 3, Froze: &record.Froze{By: "somebody"}}
	if done := step("froze"); len(done) != 0 {
		t.Errorf("done while froze: %v", done)
	}
	w.Record = &record.Cluster{Epoch: record.Epoch{Number: 3, Primary: 3}, LastEpoch: 3, Operation: &record.Operation{Step: record.After, To: 3}}
	step("after")
	s.expect("after", write, 3)
}

func TestAReadVIPStaysWhereItsHolderServesAndOnlySSHIsAway(t *testing.T) {
	t.Parallel()
	s := newSegment(t)
	v := NewVIPs(s.e)
	read := s.e.cfg.Addresses.Read
	w := Wanted{Term: 1, Rotation: []topology.NodeID{2, 3}, Record: &record.Cluster{Epoch: record.Epoch{Number: 1, Primary: 1}, LastEpoch: 1}}
	if _, err := v.Step(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	s.expect("at first", read, 2)
	s.hosts[2].ssh.Close()
	if done, err := v.Step(t.Context(), w); err != nil || slices.ContainsFunc(done, func(a vip.Action) bool { return a.Verb == vip.Take }) {
		t.Errorf("while its host does not answer: %v, %v", done, err)
	}
	w.Rotation = []topology.NodeID{3}
	if _, err := v.Step(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	s.expect("its holder left the rotation, and cannot be told", read, 2, 3)
	if err := s.hosts[2].ssh.Open(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patienceOfTests); len(s.on(read)) > 1; {
		if _, err := v.Step(t.Context(), w); err != nil || time.Now().After(end) {
			t.Fatalf("once it answers again: on %v, %v", s.on(read), err)
		}
	}
	s.expect("once it answers again", read, 3)
}

// A login that may change nothing: what it lacks is said, and what was asked for is not there.
func TestAnAccountWithoutRightsSaysWhatItNeeds(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("this test needs setpriv: scripts/install-deps test installs it")
	}
	s := newSegment(t)
	m := s.hosts[1]
	m.ssh = sshlocal.ForTest(t, `ForceCommand exec nsenter --net=`+m.net+` setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "$SSH_ORIGINAL_COMMAND"`)
	n := s.node(1)
	n.Login, n.OSUser, n.Elevate = "nobody", "nobody", nil
	s.e.nodes[1] = n
	r, _ := s.e.Do(t.Context(), vipAction(decide.TakeVIP, 1, 2, record.After))
	if !strings.Contains(r.Err, "nobody needs sudo") || !strings.Contains(r.Err, "log in there as root, or configure") {
		t.Errorf("%q", r.Err)
	}
	s.expect("without rights", s.e.cfg.Addresses.Write)
	done, err := NewVIPs(s.e).Step(t.Context(), Wanted{Record: &record.Cluster{Epoch: record.Epoch{Number: 2, Primary: 1}, LastEpoch: 2}})
	if err == nil || len(done) != 0 {
		t.Errorf("in quiet times: %v, %v", done, err)
	}
}

// A host answers, and lets nobody take the address off it.
func TestNobodyTakesAVIPThatStaysOnAHostThatAnswers(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("this test needs setpriv: scripts/install-deps test installs it")
	}
	s := newSegment(t)
	write, able, m := s.e.cfg.Addresses.Write, s.e.nodes[3], s.hosts[3]
	m.ssh = sshlocal.ForTest(t, `ForceCommand exec nsenter --net=`+m.net+` setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "$SSH_ORIGINAL_COMMAND"`)
	n := s.node(3)
	n.Login, n.OSUser, n.Elevate = "nobody", "nobody", nil
	s.e.nodes[3] = n
	m.ip("addr", "add", write.Addr().String()+"/32", "dev", "eth0")
	v := NewVIPs(s.e)
	w := Wanted{Term: 1, Record: &record.Cluster{Epoch: record.Epoch{Number: 2, Primary: 1}, LastEpoch: 2}}
	onlyRead := func(done []vip.Action) bool {
		return !slices.ContainsFunc(done, func(a vip.Action) bool { return a.VIP == write })
	}
	if done, err := v.Step(t.Context(), w); err == nil || !onlyRead(done) {
		t.Errorf("at first: %v, %v", done, err)
	}
	s.expect("at first", write, 3)
	for range 2 { // the drop waits for its next try
		if done, _ := v.Step(t.Context(), w); !onlyRead(done) {
			t.Errorf("until the next try: %v", done)
		}
		s.expect("until the next try", write, 3)
	}
	s.e.nodes[3] = able
	for end := time.Now().Add(patienceOfTests); !slices.Equal(s.on(write), []topology.NodeID{1}); {
		if _, err := v.Step(t.Context(), w); err != nil || time.Now().After(end) {
			t.Fatalf("once it can be taken off: on %v, %v", s.on(write), err)
		}
		if len(s.on(write)) > 1 {
			t.Fatal("two hosts have it")
		}
	}
}

func TestOneAddressCannotBeBothVIPs(t *testing.T) {
	if _, err := New(Config{Now: func() time.Duration { return 0 }, Addresses: Addresses{
		Write: address(t, vip.Write, "10.98.0.40/24"), Read: address(t, vip.Read, "10.98.0.40/32")}}, zaptest.NewLogger(t)); err == nil {
		t.Error("one address for both was taken")
	}
}
