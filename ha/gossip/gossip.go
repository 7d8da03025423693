// Package gossip is how the members of a fleet find each other and pass hints on: who is there, who
// seems gone, what somebody just saw, and what operators said (the Ledger). It is the only importer
// of hashicorp/memberlist. Nothing here is a vote: a member that is missing may be alive, one that
// is present may be cut off from the others, a message may be lost or come late. Who may do what is
// decided by the consensus log and by leases.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

const (
	// maxEvents is how many events wait for their reader; what comes then is dropped.
	maxEvents = 256
	// maxOutbox is how many frames wait to be sent for the first time.
	maxOutbox = 128
	// maxQueued is how many frames are passed on at the same time; the oldest go first.
	maxQueued = 256
	// retransmit is how often a frame is repeated: retransmit * log10(members+1), rounded up.
	retransmit = 4
)

// ErrBusy is returned by Broadcast when more is waiting to be sent than is reasonable for hints.
var ErrBusy = errors.New("too many messages are waiting to be sent")

// Gossip is one member's part in the gossip of its fleet. All methods but Run may be called by any
// goroutine at any time.
type Gossip struct {
	config   Config
	log      *zap.Logger
	boot     uint64
	numbered atomic.Uint64
	ledger   *Ledger
	roster   *roster
	events   chan Event
	dropped  atomic.Uint64
	outbox   chan frame
	meta     atomic.Pointer[Meta]
	changed  chan struct{} // the meta did
}

// New returns a member that is not there yet; Run makes it appear. State is what Encode of the
// ledger returned before a restart, or empty.
func New(config Config, state []byte, log *zap.Logger) (*Gossip, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	g := &Gossip{
		config: config,
		log:    log,
		boot:   rand.Uint64(),
		ledger: NewLedger(config.Name),
		roster: newRoster(config.Name),
		events: make(chan Event, maxEvents),
		outbox: make(chan frame, maxOutbox),
		// one is enough: whoever takes it reads the newest meta
		changed: make(chan struct{}, 1),
	}
	g.meta.Store(&config.Meta)
	if len(state) > 0 {
		if _, err := g.ledger.Merge(state); err != nil {
			return nil, fmt.Errorf("take over the kept ledger: %w", err)
		}
	}
	return g, nil
}

// Run is present in the fleet until ctx ends, then says goodbye. It fails when the address cannot
// be bound or the advertised one cannot be found out. A few of memberlist's goroutines have no end
// that can be awaited: they are gone two probe intervals later and touch nothing but memory.
func (g *Gossip) Run(ctx context.Context) error {
	advertise, err := g.config.advertised(ctx)
	if err != nil {
		return err
	}
	group, inner := errgroup.WithContext(ctx)
	transport, err := newTransport(inner, g.config.bind(), bridge(g.log))
	if err != nil {
		return fmt.Errorf("gossip on %s: %w", g.config.Bind, err)
	}
	group.Go(func() error { transport.admit(); return nil })
	g.roster.advertise(transport.finalAddress(advertise))
	calls := newCallbacks(g)
	list, err := memberlist.Create(g.tuned(transport, advertise, calls))
	if err != nil {
		return errors.Join(fmt.Errorf("gossip on %s: %w", g.config.Bind, err), transport.Shutdown(), group.Wait())
	}
	group.Go(func() error { g.rejoin(inner, list); return nil })
	g.send(inner, list, calls)
	g.leave(list, calls)
	err = list.Shutdown()
	return errors.Join(err, group.Wait())
}

// tuned is memberlist's configuration. Its LAN defaults take 5 to 7 s to call a member dead; with
// these, three members or more need a probe round and 1.5 to 3 s at the default interval.
func (g *Gossip) tuned(t *transport, advertise address, calls *callbacks) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = g.config.Name
	c.Transport = t
	c.BindAddr, c.BindPort = g.config.bind().ip, t.GetAutoBindPort()
	if advertise.ip != "" {
		final := t.finalAddress(advertise)
		c.AdvertiseAddr, c.AdvertisePort = final.ip, final.port
	}
	c.SecretKey = g.config.Key
	c.ProbeInterval = g.config.ProbeInterval
	c.ProbeTimeout = g.config.ProbeInterval * 3 / 5
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = 3, 2
	// A member that is cut off must not slow its probes down eightfold: it has to notice its return.
	c.AwarenessMaxMultiplier = 2
	c.GossipInterval = g.config.ProbeInterval / 5
	c.GossipToTheDeadTime = 60 * g.config.ProbeInterval
	c.PushPullInterval = 10 * g.config.ProbeInterval
	c.TCPTimeout = streamTimeout
	// A member may come back at another address, as containers do.
	c.DeadNodeReclaimTime = 4 * g.config.ProbeInterval
	c.RetransmitMult = retransmit
	c.Logger = bridge(g.log)
	c.Delegate, c.Events, c.Conflict, c.Alive = calls, calls, calls, calls
	return c
}

// send takes out what the callers want sent, until ctx ends.
func (g *Gossip) send(ctx context.Context, list *memberlist.Memberlist, calls *callbacks) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-g.outbox:
			g.spread(list, calls, f)
		case <-g.changed:
			// The answer says only whether somebody has heard it within the time.
			_ = list.UpdateNode(g.config.ProbeInterval)
		}
	}
}

// spread sends a frame to every member at once, also to those that seem gone, and has it repeated and passed on by gossip.
func (g *Gossip) spread(list *memberlist.Memberlist, calls *callbacks, f frame) {
	encoded := f.encode()
	for _, m := range g.roster.reachable() {
		if err := list.SendToAddress(memberlist.Address{Addr: m.Address, Name: m.Name}, encoded); err != nil {
			g.log.Debug("send a message", zap.String("member", m.Name), zap.Error(err))
		}
	}
	calls.pass(encoded)
}

// leave tells the others that this member goes on purpose. They need not have heard it.
func (g *Gossip) leave(list *memberlist.Memberlist, calls *callbacks) {
	g.spread(list, calls, g.frame(goodbye, nil))
	if err := list.Leave(2 * g.config.ProbeInterval); err != nil {
		g.log.Debug("say goodbye", zap.Error(err))
	}
}

func (g *Gossip) frame(k kind, payload []byte) frame {
	return frame{kind: k, origin: g.config.Name, boot: g.boot, number: g.numbered.Add(1), payload: payload}
}

// Members returns this member first and then all others that were heard of, by name; also those
// that are gone, for as long as there is room.
func (g *Gossip) Members() []Member { return g.roster.all(*g.meta.Load()) }

// Events are what happens, for one reader. An event is a wake-up: when the reader is slow, events
// are dropped, while Members and the ledger stay true. The channel is never closed.
func (g *Gossip) Events() <-chan Event { return g.events }

// Dropped counts the events that found no room.
func (g *Gossip) Dropped() uint64 { return g.dropped.Load() }

// Broadcast sends payload, at most MaxMessage bytes, to all members: each gets it at most once, as an
// Event of kind Message, most probably within milliseconds, and possibly not.
func (g *Gossip) Broadcast(payload []byte) error {
	if len(payload) > MaxMessage {
		return fmt.Errorf("broadcast a message: %d bytes, at most %d", len(payload), MaxMessage)
	}
	select {
	case g.outbox <- g.frame(message, append([]byte(nil), payload...)):
		return nil
	default:
		return fmt.Errorf("broadcast a message: %w", ErrBusy)
	}
}

// Publish writes a key of the ledger for all members. Those that are present have it most probably
// within milliseconds, the others when they are back.
func (g *Gossip) Publish(key string, value []byte) error {
	return g.publish(g.ledger.Set(key, value))
}

// Retract takes a key of the ledger away, in the same way.
func (g *Gossip) Retract(key string) error {
	return g.publish(g.ledger.Delete(key))
}

func (g *Gossip) publish(change []byte, err error) error {
	if err != nil {
		return err
	}
	select {
	case g.outbox <- g.frame(delta, change):
	default: // the next full exchange has it
	}
	return nil
}

// Ledger is what the operators said, as far as this member knows. Write it by Publish and Retract,
// so that the others hear of it at once.
func (g *Gossip) Ledger() *Ledger { return g.ledger }

// Describe changes what this member tells of itself.
func (g *Gossip) Describe(m Meta) error {
	if err := m.validate(); err != nil {
		return err
	}
	g.meta.Store(&m)
	select {
	case g.changed <- struct{}{}:
	default:
	}
	return nil
}

// post hands an event to the reader. It never blocks: memberlist's locks are held around it.
func (g *Gossip) post(e Event) {
	select {
	case g.events <- e:
	default:
		g.dropped.Add(1)
	}
}

// streamTimeout bounds a full exchange with one member.
const streamTimeout = 2 * time.Second
