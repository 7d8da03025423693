package operation

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/ha/vip"
)

// VIPs keeps a cluster's virtual addresses where they belong, in quiet times: the write VIP on the host of
// the epoch's primary, the read VIP on that of a standby in rotation, and neither anywhere else. It is the
// leader's, made when it is elected. It never disputes with an operation: of the write VIP it keeps its
// hands off between an operation's Intent and its After, and no operation touches the read VIP. One
// goroutine uses it.
type VIPs struct {
	e *Executor
	// reader is the host that was last seen with the read VIP; silentSince, since when nobody had it while
	// a host that might have did not answer.
	reader      string
	silentSince time.Duration
	announced   map[vip.VIP]time.Duration
	setbacks    map[vip.Action]setback // by Verb, VIP and Host
	holdings    map[vip.Kind]Holding
}

// Holding is which hosts were seen to have a VIP, and when; Hosts is empty when none had it and all said so.
type Holding struct {
	VIP   vip.VIP
	Hosts []string
	At    time.Duration
}

// setback is an action that failed: when it may be tried again, and after which pause.
type setback struct{ until, pause time.Duration }

// Wanted is what the leader knows that says where addresses belong.
type Wanted struct {
	Record *record.Cluster
	// Term is the leader's. A deposed leader's command for the read VIP is refused by whatever host a later
	// one has moved it to or from.
	Term uint64
	// Rotation are the nodes that take reads, best first; the primary among them counts only when there is
	// no other.
	Rotation []topology.NodeID
}

// NewVIPs is for one reign of a leader.
func NewVIPs(e *Executor) *VIPs {
	return &VIPs{e: e, announced: map[vip.VIP]time.Duration{}, setbacks: map[vip.Action]setback{}, holdings: map[vip.Kind]Holding{}}
}

// Holdings is where each configured VIP was last seen, by Kind. What Step did since is not in it.
func (v *VIPs) Holdings() map[vip.Kind]Holding { return maps.Clone(v.holdings) }

// remember notes who was seen to have what. While nobody has a VIP and somebody does not answer, what was
// seen before stays: with its time it says more.
func (v *VIPs) remember(seen map[string]vip.Sight) {
	for _, address := range []vip.VIP{v.e.cfg.Addresses.Write, v.e.cfg.Addresses.Read} {
		if !configured(address) {
			continue
		}
		h, silent := Holding{VIP: address, At: v.e.cfg.Now()}, false
		for _, host := range slices.Sorted(maps.Keys(seen)) {
			silent = silent || !seen[host].Known
			if len(vip.Held(address, seen[host].Addresses)) > 0 {
				h.Hosts = append(h.Hosts, host)
			}
		}
		if len(h.Hosts) > 0 || !silent {
			v.holdings[address.Kind] = h
		}
	}
}

const (
	// seeing bounds the question to one host, moving an action on one.
	seeing = time.Second
	moving = 5 * time.Second
	// repeatEvery is the pause between announcements for the sake of a host that does not answer and may
	// have the address, too.
	repeatEvery = 10 * time.Second
	// longestPause bounds that between two tries of what fails.
	longestPause = 30 * time.Second
	// silence is how long a host that may have the read VIP may not answer until another one gets it.
	silence = 3 * time.Second
)

// Step looks at all hosts and does what is to be done, nothing while the cluster is frozen, and says what it
// has done. It takes 0.1 s when
// nothing is to be done, and up to moving for each action. Call it each second, and at once when the
// rotation, the epoch or the operation's step changed; ctx ends with the leadership. What fails is tried
// again after ever longer pauses, and is in err only when it was tried.
func (v *VIPs) Step(ctx context.Context, w Wanted) (done []vip.Action, err error) {
	c := w.Record
	if c == nil || c.Epoch.Number == 0 || !configured(v.e.cfg.Addresses.Write) && !configured(v.e.cfg.Addresses.Read) {
		return nil, nil
	}
	hosts := v.e.hosts()
	seen := look(ctx, hosts)
	v.remember(seen)
	if c.Froze != nil {
		return nil, nil
	}
	var (
		acting   sync.WaitGroup
		outcomes = map[vip.VIP][]outcome{}
	)
	for address, plan := range v.due(vip.Plan(v.wants(w, seen), seen), seen) {
		list := make([]outcome, len(plan))
		outcomes[address] = list
		acting.Go(func() {
			stuck := false
			for i, a := range plan {
				if a.Verb == vip.Take && stuck {
					break // see due
				}
				list[i] = outcome{a, v.act(ctx, v.place(w, a, hosts[a.Host]), a.Verb, seen[a.Host])}
				stuck = stuck || a.Verb == vip.Drop && list[i].err != nil
			}
		})
	}
	acting.Wait()
	var failed []error
	for _, list := range outcomes {
		for _, o := range list {
			if o.Verb == "" {
				break // not done
			}
			if v.note(o); o.err != nil {
				failed = append(failed, o.err)
			} else {
				done = append(done, o.Action)
			}
		}
	}
	return done, errors.Join(failed...)
}

// outcome is how an action ended.
type outcome struct {
	vip.Action
	err error
}

// note remembers an outcome for the next steps.
func (v *VIPs) note(o outcome) {
	key := bare(o.Action)
	if o.err != nil {
		pause := min(max(2*v.setbacks[key].pause, time.Second), longestPause)
		v.setbacks[key] = setback{until: v.e.cfg.Now() + pause, pause: pause}
		return
	}
	delete(v.setbacks, key)
	if o.Verb != vip.Drop {
		v.announced[o.VIP] = v.e.cfg.Now()
	}
}

// due are the actions of a plan whose time has come, on hosts that answer, for each VIP in their order.
//
// While a VIP could not be taken off a host that answers and has it, nobody takes it: two hosts that answer
// for one address are worse than one that should not. When the leader dies between the two actions, or one
// wakes late, the next leader sees who has it, and the ratchets refuse the late one.
func (v *VIPs) due(plan []vip.Action, seen map[string]vip.Sight) map[vip.VIP][]vip.Action {
	now, due, stuck := v.e.cfg.Now(), map[vip.VIP][]vip.Action{}, map[vip.VIP]bool{}
	for _, a := range plan {
		last, announced := v.announced[a.VIP]
		again := a.Verb == vip.Announce && announced && now-last < repeatEvery && len(due[a.VIP]) == 0
		waits := now < v.setbacks[bare(a)].until
		stuck[a.VIP] = stuck[a.VIP] || a.Verb == vip.Drop && waits
		if seen[a.Host].Known && !again && !waits && !(a.Verb == vip.Take && stuck[a.VIP]) {
			due[a.VIP] = append(due[a.VIP], a)
		}
	}
	return due
}

// hosts are the hosts that can be acted on, by their names, each with one of its nodes.
func (e *Executor) hosts() map[string]Node {
	hosts := map[string]Node{}
	for _, id := range slices.Sorted(maps.Keys(e.nodes)) {
		n := e.nodes[id]
		if _, known := hosts[n.Node.Host]; !known && n.Host != nil {
			hosts[n.Node.Host] = n
		}
	}
	return hosts
}

// look asks all hosts at once what addresses they have.
func look(ctx context.Context, hosts map[string]Node) map[string]vip.Sight {
	ctx, cancel := context.WithTimeout(ctx, seeing)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		seen = map[string]vip.Sight{}
	)
	for name, n := range hosts {
		wg.Go(func() {
			list, err := n.addresses(ctx)
			mu.Lock()
			defer mu.Unlock()
			seen[name] = vip.Sight{Known: err == nil, Addresses: list}
		})
	}
	wg.Wait()
	return seen
}

// wants says who shall hold what. A VIP of which nothing can be said now is left out: it stays.
func (v *VIPs) wants(w Wanted, seen map[string]vip.Sight) []vip.Want {
	var wants []vip.Want
	settled := w.Record.Operation == nil || w.Record.Operation.Step == record.After
	primary := ""
	if n, ok := v.e.nodes[w.Record.Epoch.Primary]; ok && settled {
		primary = n.Node.Host
	}
	write, read := v.e.cfg.Addresses.Write, v.e.cfg.Addresses.Read
	if configured(write) && primary != "" {
		wants = append(wants, vip.Want{VIP: write, Holder: primary})
	}
	if !configured(read) {
		return wants
	}
	var standbys []string
	for _, id := range w.Rotation {
		if n, ok := v.e.nodes[id]; ok && id != w.Record.Epoch.Primary && n.Host != nil {
			standbys = append(standbys, n.Node.Host)
		}
	}
	holder, certain := v.readerAmong(standbys, read, seen)
	standbys = slices.DeleteFunc(standbys, func(host string) bool { return !seen[host].Known && host != holder })
	holder = vip.Reader(holder, standbys, primary)
	if certain && holder != "" {
		wants = append(wants, vip.Want{VIP: read, Holder: holder})
	}
	return wants
}

// readerAmong says who has the read VIP, "" when nobody has. It is not certain while nobody is seen with it
// and one of those who might have it does not say.
func (v *VIPs) readerAmong(standbys []string, read vip.VIP, seen map[string]vip.Sight) (holder string, certain bool) {
	silent := false
	for _, host := range slices.Sorted(maps.Keys(seen)) {
		holds := len(vip.Held(read, seen[host].Addresses)) > 0
		if holds && (holder == "" || slices.Contains(standbys, host)) {
			holder = host
		}
		silent = silent || !seen[host].Known && slices.Contains(standbys, host)
	}
	now := v.e.cfg.Now()
	switch {
	case holder != "" || !silent:
		v.reader, v.silentSince = holder, 0
		return holder, true
	case slices.Contains(standbys, v.reader) && !seen[v.reader].Known:
		return v.reader, true // it serves, and only its host does not answer
	case v.silentSince == 0:
		v.silentSince = now
	}
	return "", now-v.silentSince >= silence
}

func bare(a vip.Action) vip.Action {
	a.Why = ""
	return a
}

// place is where an action happens, and for which decision; see vipToken.
func (v *VIPs) place(w Wanted, a vip.Action, n Node) placement {
	step := int(record.After)
	if a.VIP.Kind == vip.Read {
		step = int(w.Term)
	}
	return placement{VIP: a.VIP, node: n, token: v.e.vipToken(a.VIP, w.Record.LastEpoch, step)}
}

func (v *VIPs) act(ctx context.Context, p placement, verb vip.Verb, seen vip.Sight) error {
	ctx, cancel := context.WithTimeout(ctx, moving)
	defer cancel()
	switch verb {
	case vip.Drop:
		return v.e.dropVIP(ctx, p)
	case vip.Take:
		return v.e.takeVIP(ctx, p)
	}
	for _, held := range vip.Held(p.VIP, seen.Addresses) {
		return v.e.announceVIP(ctx, p, held)
	}
	return nil
}
