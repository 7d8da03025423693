package member

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/gossip"
)

// Orders about backends are no decisions of the fleet: the newest word of an operator is the right one.
// So they travel in the gossip's ledger, under backendKey and the cluster's name and the address, and
// each member's agent obeys what stands there.
const backendKey = "backend/"

// orderRetry is the pause after an order could not be obeyed: a server that was added elsewhere may not
// answer here yet.
const orderRetry = 2 * time.Second

func keyOf(o ha.Order) string { return backendKey + o.Cluster + "/" + o.Address }

func orderOf(key string, value []byte) (ha.Order, bool) {
	rest, ours := strings.CutPrefix(key, backendKey)
	cluster, address, found := strings.Cut(rest, "/")
	return ha.Order{Cluster: cluster, Address: address, Word: ha.Word(value)}, ours && found
}

// tell passes an order that was given here on to the other members.
func (m *Member) tell(o ha.Order) {
	if err := m.gossip.Publish(keyOf(o), []byte(o.Word)); err != nil {
		m.log.Error("the other members do not learn of an operator's order; give it to each of them",
			zap.String("cluster", o.Cluster), zap.String("address", o.Address), zap.String("order", string(o.Word)), zap.Error(err))
		return
	}
	m.saveLedger()
}

func (m *Member) ledgerFile() string { return filepath.Join(m.stateDir, "ledger") }

// readLedger is what the ledger was before a restart; empty when there is nothing.
func readLedger(file string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return content, err
}

func (m *Member) saveLedger() {
	if err := ha.ReplaceFile(m.ledgerFile(), m.gossip.Ledger().Encode()); err != nil {
		m.log.Error("operators' orders would be forgotten if all members ended now", zap.Error(err))
	}
}

// missed adds all keys when events were dropped since it was asked last, and says how many were by now: an order
// can wait long for an address that does not answer, and what is said meanwhile is in the ledger alone.
func missed(open map[string]bool, before, dropped uint64, ledger *gossip.Ledger) uint64 {
	if dropped != before {
		for key := range ledger.All() {
			open[key] = true
		}
	}
	return dropped
}

// hear follows the gossip: who comes and goes, and what operators say to other members.
func (m *Member) hear(ctx context.Context) {
	open, dropped := map[string]bool{}, m.gossip.Dropped() // open: keys of orders that are not obeyed yet
	for key := range m.gossip.Ledger().All() {
		open[key] = true
	}
	again := time.NewTicker(orderRetry)
	defer again.Stop()
	for {
		m.obey(ctx, open)
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			if now := missed(open, dropped, m.gossip.Dropped(), m.gossip.Ledger()); now != dropped {
				dropped = now
				m.saveLedger()
			}
		case e := <-m.gossip.Events():
			switch e.Kind {
			case gossip.Joined, gossip.Departed:
				m.log.Info("member "+e.Kind.String(), zap.String("member", e.Member.Name), zap.Stringer("presence", e.Member.Presence))
			case gossip.Amended:
				for _, key := range e.Keys {
					open[key] = true
				}
				m.saveLedger()
			}
		}
	}
}

// obey takes the orders of the keys, as the ledger has them now, and crosses out what is done.
func (m *Member) obey(ctx context.Context, open map[string]bool) {
	for key := range open {
		value, there := m.gossip.Ledger().Get(key)
		o, ours := orderOf(key, value)
		if !there || !ours || m.clusters[o.Cluster] == nil {
			delete(open, key)
			continue
		}
		err := m.parts.Agent.Obey(ctx, o)
		if err == nil || errors.Is(err, ha.ErrUnknown) {
			delete(open, key)
			continue
		}
		m.log.Debug("order not obeyed yet", zap.String("cluster", o.Cluster), zap.String("address", o.Address), zap.Error(err))
	}
}
