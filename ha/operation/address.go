package operation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/ha/vip"
)

// Addresses are a cluster's virtual addresses. One without a Prefix is not configured.
type Addresses struct {
	// Write is on the host of the primary, Read on that of a standby that takes reads.
	Write, Read vip.VIP
	// Segment is this host, from which is asked who answers for an address when it is on the same
	// segment, and which announces it for a host that has no tool to; nil: neither is done.
	Segment *vip.Local
}

func configured(v vip.VIP) bool { return v.Prefix.IsValid() }

func (a Addresses) validate() error {
	for _, v := range []vip.VIP{a.Write, a.Read} {
		if !configured(v) {
			continue
		}
		if err := v.Validate(); err != nil {
			return err
		}
	}
	if configured(a.Write) && configured(a.Read) && a.Write.Addr() == a.Read.Addr() {
		return fmt.Errorf("the write VIP and the read VIP are the same: %s", a.Write.Addr())
	}
	return nil
}

// placement is a VIP, the node on whose host something is done to it, and the decision that wants it.
type placement struct {
	vip.VIP
	node  Node
	token remote.Token
	note  func(line string) // for the task's log; may be nil
}

func (p placement) say(format string, args ...any) {
	if p.note != nil {
		p.note(fmt.Sprintf(format, args...))
	}
}

// vipToken is the decision that something is done to a VIP for. Each VIP has a ratchet of its own on every
// host, beside those of the data directories: a ratchet runs one command at a time and ends those of lower
// tokens, and moving an address must neither wait for a rebuild nor end one.
//
// Within one epoch number of the log (record.Cluster.LastEpoch) the write VIP has one proper holder once the
// operation that used the number has reached After or has been undone: everybody who acts from then on,
// whoever leads, acts for that one, so all of them share the step After. The steps before it, which only
// take the VIP off the old primary, are lower: a late one is refused.
func (e *Executor) vipToken(v vip.VIP, epoch topology.Epoch, step int) remote.Token {
	return remote.Token{Fleet: e.cfg.Fleet, Cluster: e.cfg.Cluster, PGData: "/vip/" + string(v.Kind) + "/" + v.Addr().String(),
		Epoch: uint64(epoch), Step: step}
}

// writeVIP is where an operation's action puts the write VIP.
func (e *Executor) writeVIP(a decide.Action, n Node) placement {
	p := placement{VIP: e.cfg.Addresses.Write, node: n}
	p.token = e.vipToken(p.VIP, a.Epoch, int(min(a.Step, record.After)))
	if e.cfg.Progress != nil {
		p.note = func(line string) { e.cfg.Progress(a, line) }
	}
	return p
}

// elevated is a command line with what gives it the rights to change addresses.
func (n Node) elevated(argv []string) []string {
	return append(append([]string{}, n.Elevate...), argv...)
}

// addresses asks the node's host what it has. Nothing is changed, no ratchet asked, and no right needed:
// what asks for one each second would fill the host's log.
func (n Node) addresses(ctx context.Context) ([]vip.Address, error) {
	if n.Host == nil {
		return nil, ErrNoHost
	}
	out, err := n.Host.Ask(ctx, vip.ListCommand())
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", n.Node.Host, err)
	}
	return vip.ParseAddresses(out.Stdout)
}

// change runs a command on a VIP under its ratchet.
func (p placement) change(ctx context.Context, argv []string) error {
	if p.node.Host == nil {
		return ErrNoHost
	}
	_, err := p.node.Host.Do(ctx, p.token, remote.Command{Argv: p.node.elevated(argv), Progress: p.note})
	var exit *remote.ExitError
	if errors.As(err, &exit) && exit.Code != vip.ExitUnannounced && p.node.Login != "root" && len(p.node.Elevate) == 0 {
		return fmt.Errorf("%w; %s may not change the addresses of its host: log in there as root, or configure what to put before the command, such as sudo -n", err, p.node.Login)
	}
	return err
}

// takeVIP: on the candidate at (To, After), on a revived primary, and by VIPs. By a script under the VIP's
// ratchet, which repeats may run again. When it dies, the address is there or not, announced or not; a
// repeat announces it again. When it wakes late, the ratchet refuses it.
func (e *Executor) takeVIP(ctx context.Context, p placement) error {
	list, err := p.node.addresses(ctx)
	if err != nil {
		return fmt.Errorf("take %s: %w", p, err)
	}
	iface, prefix, err := vip.Place(p.VIP, list)
	if err != nil {
		return fmt.Errorf("take %s on %s: %w", p, p.node.Node.Host, err)
	}
	if err := p.change(ctx, vip.TakeCommand(iface, prefix)); exitCode(err) == vip.ExitUnannounced {
		e.announceFor(ctx, p, hardware(list, iface))
	} else if err != nil {
		return fmt.Errorf("take %s on %s: %w", p, p.node.Node.Host, err)
	}
	e.verify(ctx, p, hardware(list, iface))
	return nil
}

// announceVIP tells the segment again where a VIP is that the host has.
func (e *Executor) announceVIP(ctx context.Context, p placement, held vip.Address) error {
	err := p.change(ctx, vip.AnnounceCommand(held.Interface, p.VIP))
	if exitCode(err) == vip.ExitUnannounced {
		e.announceFor(ctx, p, held.MAC)
		return nil
	}
	if err != nil {
		return fmt.Errorf("announce %s on %s: %w", p, p.node.Node.Host, err)
	}
	return nil
}

// dropVIP: on an old primary from (To, Fence) on, on whoever comes back in quarantine, and by VIPs. By a
// script under the VIP's ratchet; see takeVIP.
func (e *Executor) dropVIP(ctx context.Context, p placement) error {
	if err := p.change(ctx, vip.DropCommand(p.VIP)); err != nil {
		return fmt.Errorf("take %s off %s: %w", p, p.node.Node.Host, err)
	}
	return nil
}

// moveVIP does the verbs TakeVIP and DropVIP of an operation.
func (e *Executor) moveVIP(ctx context.Context, a decide.Action, n Node) error {
	p := e.writeVIP(a, n)
	switch {
	case !configured(p.VIP):
		return errors.New("no write VIP is configured")
	case a.Verb == decide.TakeVIP:
		return e.takeVIP(ctx, p)
	case e.shared(n):
		// To be taken off one node's host may be to be taken off the new primary's. VIPs knows.
		p.say("another node is on the same host: %s stays there until the operation is over", p)
		return nil
	}
	return e.dropVIP(ctx, p)
}

// shared says whether another node is on the same host.
func (e *Executor) shared(n Node) bool {
	for id, other := range e.nodes {
		if id != n.ID && other.Node.Host == n.Node.Host {
			return true
		}
	}
	return false
}

func hardware(list []vip.Address, iface string) net.HardwareAddr {
	for _, a := range list {
		if a.Interface == iface {
			return a.MAC
		}
	}
	return nil
}

// near is this host's interface on the segment of a VIP; "" when there is none, or when this host has the
// VIP itself: then it hears nobody.
func (e *Executor) near(v vip.VIP) string {
	if e.cfg.Addresses.Segment == nil {
		return ""
	}
	mine, err := e.cfg.Addresses.Segment.Addresses()
	if err != nil || len(vip.Held(v, mine)) > 0 {
		return ""
	}
	iface, _, err := vip.Place(vip.VIP{Kind: v.Kind, Prefix: v.Prefix}, mine)
	if err != nil {
		return ""
	}
	return iface
}

// announceFor tells the segment from here, for a host that has no tool to do it. The address works all the
// same; clients that had spoken to its former holder find it later.
func (e *Executor) announceFor(ctx context.Context, p placement, who net.HardwareAddr) {
	err := errors.New("this host is not on its segment")
	if iface := e.near(p.VIP); iface != "" && who != nil {
		err = vip.Announcement{Addr: p.Addr(), Interface: iface, MAC: who}.Send(ctx)
	}
	if err != nil {
		e.log.Warn("a virtual address was not announced", zap.Stringer("vip", p.VIP), zap.Int("node", int(p.node.ID)), zap.Error(err))
		p.say("%s is on %s, and the segment was not told: %v", p, p.node.Node.Host, err)
	}
}

// listening is how long the segment is asked who answers for an address.
const listening = 300 * time.Millisecond

// verify asks the segment of a VIP who answers for it, where this host is on that segment. What is wrong
// there is said and fails nothing: the host has the address, and a repeat would do the same.
func (e *Executor) verify(ctx context.Context, p placement, expected net.HardwareAddr) {
	iface := e.near(p.VIP)
	if iface == "" || expected == nil {
		p.say("%s is on %s; who answers for it was not asked: this host is not on its segment, or has it itself", p, p.node.Node.Host)
		return
	}
	holders, err := vip.Holders(ctx, p.Addr(), iface, listening)
	if err != nil {
		p.say("%s is on %s; who answers for it could not be asked: %v", p, p.node.Node.Host, err)
		return
	}
	answer := vip.Judge(holders, expected)
	if answer != vip.Alone {
		e.log.Warn("a virtual address does not answer as it should", zap.Stringer("vip", p.VIP), zap.Int("node", int(p.node.ID)),
			zap.String("why", fmt.Sprintf("%s: %v answer, expected %s", answer, holders, expected)))
	}
	p.say("%s is on %s; asked who answers for it, the segment says: %s", p, p.node.Node.Host, answer)
}
