package operation

import (
	"context"
	"sync"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/ha/vip"
)

// hostGrace is how long a Look waits for the host when the server has answered.
const hostGrace = 300 * time.Millisecond

// look asks the server and its host at once. A server that runs says more of itself than its files do,
// so once it has answered the host is waited for during grace alone.
func (e *Executor) look(ctx context.Context, n Node, grace time.Duration) Report {
	at := e.cfg.Now()
	asking, enough := context.WithCancel(ctx)
	defer enough()
	var (
		wg       sync.WaitGroup
		host     *HostFacts
		seen     pgnode.Observation
		facts    pgnode.Facts
		answered bool
		bears    = e.cfg.Addresses.Write
		listed   []vip.Address
	)
	if n.Host != nil {
		wg.Add(1)
		go func() { // waited for below
			defer wg.Done()
			if h, err := n.hostFacts(asking); err == nil {
				host = h
			}
		}()
	}
	if n.Host != nil && configured(bears) {
		wg.Add(1)
		go func() { // waited for below
			defer wg.Done()
			listed, _ = n.addresses(asking) // nil when it did not answer
		}()
	}
	if o, f, err := e.ask(ctx, n); err == nil {
		seen, facts, answered = o, f, true
		defer time.AfterFunc(grace, enough).Stop()
	}
	wg.Wait()
	r := Report{Host: host}
	if host != nil {
		r.Fact = ofHost(*host)
		r.Fact.At = at
	}
	if answered {
		r.Fact = e.ofServer(seen, facts)
		r.Fact.At, r.Warnings = at, facts.Warnings
		r.Fact.DiskFull = host != nil && host.full()
	}
	if listed != nil {
		r.VIPKnown, r.Fact.NoVIP = true, len(vip.Held(bears, listed)) == 0
	}
	return r
}

func (e *Executor) ask(ctx context.Context, n Node) (pgnode.Observation, pgnode.Facts, error) {
	c, err := n.SQL.Connect(ctx)
	if err != nil {
		return pgnode.Observation{}, pgnode.Facts{}, err
	}
	defer c.Close(ctx)
	o, err := c.Probe(ctx)
	if err != nil {
		return o, pgnode.Facts{}, err
	}
	f, err := c.Facts(ctx)
	return o, f, err
}

func (e *Executor) ofServer(o pgnode.Observation, f pgnode.Facts) decide.Fact {
	fact := decide.Fact{
		Role: o.Role, SystemID: o.SystemID, History: o.History, Write: o.Write, Receive: o.Receive, Replay: o.Replay,
		Streaming: f.Streaming, Running: true, Complete: f.Complete, Marked: f.Marker.Epoch,
		Settings: decide.Settings{MaxConnections: o.Settings.MaxConnections, MaxWorkers: o.Settings.MaxWorkers,
			MaxSenders: o.Settings.MaxSenders, MaxPrepared: o.Settings.MaxPrepared, MaxLocks: o.Settings.MaxLocks},
	}
	if f.Marker.Epoch != 0 && !f.Marker.Released {
		// One that is recruited is cut off only when nothing is left that could stream yet.
		fact.Recruited, fact.Streaming = f.Marker.Epoch, f.Receiver
	}
	if set, err := pgnode.ParseSyncNames(o.Settings.SyncNames); err == nil && o.Role == topology.RolePrimary {
		fact.Sync = set
	}
	for id, n := range e.nodes {
		if f.Upstream != "" && n.Address() == f.Upstream {
			fact.Upstream = id
		}
	}
	return fact
}

// ofHost is what the files alone say.
func ofHost(h HostFacts) decide.Fact {
	fact := decide.Fact{SystemID: h.SystemID, Running: h.Processes > 0, Stopped: (h.Exists || h.Unfinished != "") && h.Processes == 0,
		Complete: h.Exists && h.Unfinished == "" && !h.Copying, History: h.History, DiskFull: h.full(),
		Marked: h.Marker.Epoch, Halfway: h.Unfinished == "recovering" || h.Unfinished == "rewound",
		Vacant: !h.Exists && h.Unfinished == ""}
	if h.State == "shut down" && h.Processes == 0 {
		fact.Write = h.Checkpoint
	}
	if !h.Marker.Released {
		fact.Recruited = h.Marker.Epoch
	}
	return fact
}

// awaitServer asks the server until so says yes, or ctx ends; the error is why not yet.
func (e *Executor) awaitServer(ctx context.Context, n Node, so func(pgnode.Observation, pgnode.Facts) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		o, f, err := e.ask(ctx, n)
		if err == nil {
			err = so(o, f)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
