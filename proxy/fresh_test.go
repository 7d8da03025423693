package proxy

import (
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// A session's read waits for its own commit, not for the statements before it: a round that was
// measured between them proves nothing.
func TestAReadSeesTheCommitAndNotOnlyTheInsert(t *testing.T) {
	for _, commit := range []string{`Query "commit"`, `Run "commit" | Sync`, `Parse "c" "commit" | Bind "" "c" | Execute "" 0 | Sync`} {
		w, c := worldWithRounds(t)
		c.send(encode(t, `Query "begin" | Query "insert into t0 values (1)"`, false))
		w.round(2, 3) // everybody has replayed everything so far
		c.send(encode(t, commit, false))
		if node := w.reads(c); node != 1 {
			t.Errorf("%s: a read behind it went to node %d", commit, node)
		}
		w.round(3)
		w.reads(c) // which opens a connection
		w.round(3)
		if node := w.reads(c); node != 3 {
			t.Errorf("%s: a read went to node %d, and only 3 has replayed the commit", commit, node)
		}
	}
}

func TestAReadOfAnotherSessionNeedNotWait(t *testing.T) {
	w, c := worldWithRounds(t)
	c.send(encode(t, `Query "insert into t0 values (1)"`, false))
	if node := w.reads(c); node != 1 {
		t.Errorf("a session's own read went to node %d", node)
	}
	if node := w.reads(w.login()); node == 1 {
		t.Error("another session's read went to the primary")
	}
}

func TestAWriteOfAnOlderEpochIsVisibleOnWhoeverWasProvedInThisOne(t *testing.T) {
	w, c := worldWithRounds(t)
	c.send(encode(t, `Query "insert into t0 values (1)"`, false))
	w.publishFresh(2, 2, 3)
	if node := w.reads(c); node != 2 {
		t.Errorf("before the first round of the new epoch a read went to node %d", node)
	}
	w.round(3)
	w.reads(c) // which opens a connection
	w.round(3)
	if node := w.reads(c); node != 3 {
		t.Errorf("behind the first round of the new epoch a read went to node %d", node)
	}
}

// A standby that has restarted lets clients in before it has replayed again what it had, and the member may
// not know of the restart yet.
func TestAReadGoesByNoConnectionThatIsYoungerThanWhatItsNodeHasProved(t *testing.T) {
	for _, pooling := range []PoolMode{TransactionPooling, SessionPooling} {
		t.Run(string(pooling), func(t *testing.T) {
			w, _ := worldWithRounds(t)
			w.p.cfg.PoolMode = pooling
			c := w.login()
			if c.session.pooling != pooling {
				t.Fatalf("%s pooling", c.session.pooling)
			}
			c.send(encode(t, `Query "insert into t0 values (1)"`, false))
			w.round(2, 3)
			if node := w.reads(c); node != 1 {
				t.Errorf("a read went to node %d by a new connection", node)
			}
			if node := w.reads(c); node != 1 {
				t.Errorf("a read went to node %d, which has proved nothing since", node)
			}
			w.round(2, 3)
			if node := w.reads(c); node == 1 {
				t.Error("a read went to the primary although the standbys have proved again that they have it")
			}
			// A session that has written nothing takes whatever is there.
			if node := w.reads(w.login()); node == 1 {
				t.Error("a read of a session without writes went to the primary")
			}
		})
	}
}

func worldWithRounds(t *testing.T) (*world, *fakeClient) {
	w := newWorld(t, nil)
	w.catalog.knowledge = modelKnowledge
	db := &modelDB{rows: map[string]int{}}
	w.model = func(srv *fakeServer) peer { return newModelServer(db) }
	w.publishFresh(1, 1, 2, 3)
	return w, w.login()
}

// publishFresh is publish, but no standby has proved anything yet.
func (w *world) publishFresh(epoch topology.Epoch, primary topology.NodeID, standbys ...topology.NodeID) {
	w.publish(epoch, primary, standbys...)
	for i := range w.c.view.Nodes {
		w.c.view.Rounds.Clear(w.c.view.Nodes[i].Slot)
	}
	w.settle()
}

// round opens a round that these nodes have replayed.
func (w *world) round(nodes ...topology.NodeID) {
	r := w.c.view.Rounds.Open(w.c.view.Epoch)
	for _, id := range nodes {
		w.c.view.Rounds.Mark(w.c.view.Node(id).Slot, r)
	}
}

// reads runs a read and returns the node that it went to.
func (w *world) reads(c *fakeClient) topology.NodeID {
	before := map[topology.NodeID]uint64{}
	for _, n := range w.p.stats.Turns() {
		before[n.Node] += n.Count
	}
	c.send(encode(w.t, `Query "select count(*) from t0"`, false))
	w.advance(time.Second)
	for _, n := range w.p.stats.Turns() {
		if before[n.Node] -= n.Count; int64(before[n.Node]) < 0 {
			return n.Node
		}
	}
	return 0
}
