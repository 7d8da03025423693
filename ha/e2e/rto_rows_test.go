package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

// row is one event that is measured.
type row struct {
	Name string
	// Leads says that the fleet's leader is on the primary's host; otherwise it is not.
	Leads bool
	// Epochs is how many new epochs the event makes.
	Epochs int
	// Load is of the clients that are measured; nil: the usual.
	Load func(*run) Load
	// Unpinned leaves the clients out that hold a server for themselves.
	Unpinned bool
	// More starts further clients before the event; may be nil.
	More func(*run)
	// Make is the fault, Mend its end, when clients write again; that may be nil.
	Make, Mend func(*run)
}

// run is one measurement.
type run struct {
	*scene
	leader, other *Member // one of them, or both, are on other hosts than the primary; other does not lead
	// The old primary's host is back, and the old primary streams.
	returned, streamed time.Time
	doing              string // what is waited for
	marks              []phase
	kept               int64 // bytes of log that the node has lost in earlier runs
}

// inside are the primary's host and clients beside it, outside everybody else.
func (r *run) inside() []*Host { return []*Host{r.former.Host, r.fleet.lab.Host("c2")} }
func (r *run) outside() []*Host {
	return slices.DeleteFunc(slices.Clone(r.fleet.lab.hosts), func(h *Host) bool { return slices.Contains(r.inside(), h) })
}

func (r *run) partition() { r.t.Helper(); r.fleet.lab.Partition(r.inside(), r.outside()) }
func (r *run) heal()      { r.t.Helper(); r.fleet.lab.Heal() }

// besides has clients work through the member on the primary's host, on its side of a partition.
func (r *run) besides() {
	r.t.Helper()
	r.also(r.fleet.lab.Host("c2"), Load{Way: only(r.fleet.memberOn(r.former.Host)), Writers: 4, Pause: 10 * time.Millisecond, Idle: 5})
}

// only is the way through one member.
func only(m *Member) Way { return Way{Addrs: []string{m.at(proxyPort)}} }

func (r *run) crash() { r.t.Helper(); r.former.Kill() }

func (r *run) powerOff() { r.t.Helper(); r.former.PowerOff() }
func (r *run) powerOn()  { r.t.Helper(); r.former.PowerOn(); r.fleet.memberOn(r.former.Host).Start() }

// stop stops the server's processes where SSH cannot end them.
func (r *run) stop() { r.t.Helper(); r.former.Block(22); r.former.Hang() }

// thaw has them go on before SSH comes back: what they held in their hands they may do now.
func (r *run) thaw() {
	r.t.Helper()
	r.former.Wake()
	pause(r.t.Context(), 2*time.Second)
	r.former.Unblock()
}

// tail has the primary, where nobody hears it, commit what the next one will not have.
func (r *run) tail() {
	r.t.Helper()
	r.partition()
	pause(r.t.Context(), 100*time.Millisecond)
	if _, err := PsqlFrom(r.t.Context(), r.fleet.lab.Host("c2"), r.former.Addr, "INSERT INTO bulk SELECT -i, repeat(md5(i::text), 30) FROM generate_series(1, 20000) i"); err != nil {
		r.t.Fatalf("commit on the old primary: %v", err)
	}
}

func (r *run) startAll(members ...*Member) {
	r.t.Helper()
	for _, m := range members {
		m.Start()
	}
	for _, m := range members {
		m.AwaitReady()
	}
}

// but are the members beside one.
func (f *Fleet) but(m *Member) []*Member {
	return slices.DeleteFunc(slices.Clone(f.members), func(o *Member) bool { return o == m })
}

func (r *run) killLeader() { r.t.Helper(); r.leader.Kill() }

// elected waits until somebody else leads.
func (r *run) elected(since time.Time) {
	r.t.Helper()
	r.doing = "another leader"
	await(r.t, r.doing, func(context.Context) bool {
		for _, l := range r.fleet.log(since) {
			if l.Msg == "leads" {
				r.marks = append(r.marks, phase{"a leader is elected", ms(l.Time.Sub(since))})
				return true
			}
		}
		return false
	})
}

func (r *run) alone() {
	r.t.Helper()
	for _, m := range r.fleet.but(r.other) {
		m.Kill()
	}
	pause(r.t.Context(), 8*time.Second) // leases are over several times
}

func (r *run) order() { r.t.Helper(); r.fleet.switchover().Make(r.former) }

var (
	crashRestarted = row{Name: "crash of the primary's processes", Make: (*run).crash}
	crashReplaced  = row{Name: "crash of the primary's processes", Epochs: 1, Make: (*run).crash}

	powerLoss           = row{Name: "power-off of the primary's host", Epochs: 1, Make: (*run).powerOff, Mend: (*run).powerOn}
	powerLossWithLeader = row{Name: "power-off of the host of primary, leader and address", Leads: true, Epochs: 1, Make: (*run).powerOff, Mend: (*run).powerOn}

	hang = row{Name: "primary stopped (SIGSTOP) without SSH, going on after the failover", Epochs: 1, Make: (*run).stop, Mend: (*run).thaw}

	minority           = row{Name: "partition: primary and a member | two members", Epochs: 1, More: (*run).besides, Make: (*run).partition, Mend: (*run).heal}
	minorityWithLeader = row{Name: "partition: primary and leader | two members", Leads: true, Epochs: 1, More: (*run).besides, Make: (*run).partition, Mend: (*run).heal}

	leaderKilled = row{Name: "leader killed", More: (*run).besides, Make: (*run).killLeader, Mend: func(r *run) {
		r.t.Helper()
		r.elected(r.event)
		r.startAll(r.leader)
	}}
	quorumLost = row{
		Name: "two of three members killed",
		Load: func(r *run) Load { return usual(only(r.other)) },
		Make: (*run).alone,
		Mend: func(r *run) {
			r.t.Helper()
			back := time.Now()
			r.startAll(r.fleet.but(r.other)...)
			r.elected(back)
		},
	}

	switchover       = row{Name: "switchover", Epochs: 1, Unpinned: true, Make: (*run).order}
	switchoverPinned = row{Name: "switchover with clients that hold temporary tables", Epochs: 1, Make: (*run).order}
	switchoverBusy   = row{
		Name: "switchover under 500 writes/s", Epochs: 1, Unpinned: true, Make: (*run).order,
		Load: func(r *run) Load {
			return Load{Way: r.fleet.way(r.other), Writers: 20, Pause: 30 * time.Millisecond, Idle: 10}
		},
		More: func(r *run) {
			r.t.Helper()
			r.also(r.fleet.lab.Host("c2"), Load{Way: r.fleet.way(r.other), Blocks: 4, Pause: 50 * time.Millisecond})
		},
	}

	ahead = row{Name: "partition: primary alone, with commits that nobody received", Epochs: 1, Make: (*run).tail, Mend: (*run).heal}
)

// awaitReplayed waits until the standbys have replayed what the primary has.
func awaitReplayed(t *testing.T, nodes []*Node) {
	t.Helper()
	awaitFor(t, time.Minute, "the standbys", func(ctx context.Context) bool {
		got, err := nodes[0].Psql(ctx, "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_insert_lsn()")
		return err == nil && got == fmt.Sprint(len(nodes)-1)
	})
}

// saved is how many bytes of lost log are kept beside the node's data, and how many MB the data has.
func (n *Node) saved(t *testing.T) (tail, data int64) {
	t.Helper()
	const script = `{ du -sb "${0%/*}/cstproxy-lost" 2>/dev/null || echo 0; du -sm "$0/base"; } | cut -f 1`
	said, err := n.shell(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(said, &tail, &data); err != nil {
		t.Fatalf("%q: %v", said, err)
	}
	return tail, data
}
