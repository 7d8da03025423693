package proxy

import (
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/wire"
	"github.com/cstproxy/cstproxy/router"
)

// turn is one request on its way: a simple Query, or everything up to one Sync. A turn that is
// open (Flush without Sync, or too large to look at whole) gets more messages while it runs.
type turn struct {
	msgs     []byte // the messages of the current part, as the client sent them
	owned    []byte // buffer behind msgs when they had to be copied
	ops      []op
	verdicts []*router.Verdict // of all texts parsed, described, bound or executed
	executed []*router.Verdict // of those that are executed
	done     []*router.Verdict // of Executes that have succeeded, as far as they have effects
	made     []*statement      // unnamed statements of this turn
	replies  replies
	route    router.Route
	node     topology.NodeID

	open      bool // more messages of this turn will come
	sent      bool // a part of it has been written to the server
	unflushed bool // nobody has asked for the answers to its part, the last one, which has no Sync
	plain     bool // nothing in msgs has to be rewritten
	began     byte // transaction status before it
	failed    bool // the server reported an error
	// deallocated is how many effects of its Query have been looked at for DEALLOCATE.
	deallocated int
	soils       bool // it leaves its server with something that nobody has looked at
	reported    bool // the server reported a parameter
	ready       bool // its ReadyForQuery has come
	copying     copyState
	synced      bool // a Sync came when COPY had begun, before its data (copy.go)
	rest        int  // bytes of a client message that are still to be passed on
	tried       []topology.NodeID
	unproved    []topology.NodeID // whose connections a read could not go by yet; see session.proved
	verify      []*statement      // described by the client, unknown to the server (verify.go)
	verified    int
	shape       uint64
	refusal     *refusal

	rerunnable bool   // it could be run again elsewhere if nothing of its answer has been forwarded
	renewable  bool   // it parses a named text and could be run again with the text parsed anew
	restaled   bool   // its plan was stale once already
	restale    bool   // its plan was stale: it is run again after ReadyForQuery
	held       []byte // answer that is kept back while the turn may still be run elsewhere
	decided    bool   // something came that commits us to this answer
	forwarded  bool   // some of the answer is at the client
	losses     uint8  // servers that it has lost, as far as it matters
}

// op is one message of a turn.
type op struct {
	typ      byte
	off, end int
	unnamed  bool            // it is about the unnamed statement
	drops    bool            // E: it drops all named statements, dropped
	stmt     *statement      // P: what it defines; B, D: what it names; nil when unknown
	verdict  *router.Verdict // E: on the text, if that has effects
	name     string          // P, C, E: the client's name, for taking the definition back
	prev     *statement      // P, C, E, Q: what the name meant before
	dropped  map[string]*statement
}

type copyState uint8

const (
	noCopy     copyState = iota
	copyAsked            // by an Execute; whether the server begins is not known yet
	copyBegun            // the server waits for data
	copyTaking           // it has got some
	copyEnded
	copyFailed
)

// reply is an answer that the server, or the proxy in its place, owes the client.
type reply struct {
	kind replyKind
	op   op
	// prepared is what the server parses for it, or closes.
	prepared *backend.Prepared
	unnamed  bool            // a hidden one about the unnamed statement
	was      backend.Unnamed // what the server's unnamed statement was before
}

type replyKind uint8

const (
	replyParse       replyKind = iota // '1'
	replyParseHidden                  // '1', not asked for by the client
	replyParseDone                    // '1' from us: the server has the statement already
	replyBind                         // '2'
	replyDescribe                     // ['t'] 'T' or 'n'
	replyExecute                      // … 'C', 'I' or 's'
	replyClose                        // '3'
	replyCloseHidden                  // '3', not asked for
	replyCloseDone                    // '3' from us: the server keeps the statement
	replySync                         // 'Z'
	replyQuery                        // … 'Z'
	replyHidden                       // … 'Z', a query of ours
)

// replies is a queue that keeps its memory.
type replies struct {
	all  []reply
	head int
}

func (r *replies) push(x reply) { r.all = append(r.all, x) }
func (r *replies) empty() bool  { return r.head == len(r.all) }
func (r *replies) first() *reply {
	if r.empty() {
		return nil
	}
	return &r.all[r.head]
}
func (r *replies) pop() { r.head++ }

// endReady says whether what is owed ends with a ReadyForQuery.
func (r *replies) endReady() bool {
	if r.empty() {
		return false
	}
	kind := r.all[len(r.all)-1].kind
	return kind == replySync || kind == replyQuery
}
func (r *replies) reset() {
	clear(r.all)
	r.all, r.head = r.all[:0], 0
}

// turns keeps unused turns: an idle session has none.
type turns struct{ free []*turn }

func (ts *turns) get() *turn {
	if n := len(ts.free); n > 0 {
		t := ts.free[n-1]
		ts.free = ts.free[:n-1]
		return t
	}
	return &turn{}
}

func (ts *turns) put(t *turn) {
	if len(ts.free) >= 1024 {
		return
	}
	clear(t.ops)
	clear(t.verdicts)
	clear(t.executed)
	clear(t.made)
	clear(t.done)
	clear(t.verify)
	t.replies.reset()
	owned, held, all := t.owned, t.held, t.replies.all
	if cap(owned) > maxKept {
		owned = nil
	}
	if cap(held) > maxKept {
		held = nil
	}
	ops, verdicts, executed, made, tried, unproved := t.ops, t.verdicts, t.executed, t.made, t.tried, t.unproved
	if cap(ops) > 256 || cap(all) > 1024 {
		ops, all, verdicts, executed, made = nil, nil, nil, nil, nil
	}
	*t = turn{owned: owned[:0], held: held[:0], ops: ops[:0], verdicts: verdicts[:0],
		executed: executed[:0], made: made[:0], tried: tried[:0], unproved: unproved[:0], verify: t.verify[:0], done: t.done[:0]}
	t.replies.all = all[:0]
	ts.free = append(ts.free, t)
}

// buffers keeps unused byte slices of one loop.
type buffers struct{ free [][]byte }

const (
	// maxKept is the largest slice that is kept for reuse.
	maxKept = 64 << 10
	// highWater is how much may wait in one direction before the other side is not read; it is
	// the reactor's HighWater, above which it owes a Drained.
	highWater = 256 << 10
)

func (p *buffers) get() []byte {
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		return b
	}
	return make([]byte, 0, 4096)
}

func (p *buffers) put(b []byte) {
	if cap(b) > 0 && cap(b) <= maxKept && len(p.free) < 256 {
		p.free = append(p.free, b[:0])
	}
}

// own copies the turn's messages, whose bytes belong to the driver.
func (t *turn) own() {
	if len(t.owned) == 0 && len(t.msgs) > 0 {
		t.owned = append(t.owned[:0], t.msgs...)
		t.msgs = t.owned
	}
}

// single says whether at most one statement is executed, so that nothing before it can have
// taken effect when it fails.
func (t *turn) single() bool {
	executes := 0
	for i := range t.ops {
		switch t.ops[i].typ {
		case 'E':
			executes++
		case 'Q':
			executes += max(1, t.executed[0].Statements)
		case 'F':
			executes += 2
		}
	}
	return executes <= 1
}

func (t *turn) body(o *op) []byte { return wire.Body(t.msgs[o.off:o.end]) }

// describes says whether the answer to a Describe of a statement comes next.
func (t *turn) describes() bool {
	x := t.replies.first()
	return x != nil && x.kind == replyDescribe && x.op.stmt != nil
}

// hidden says whether the server is answering a query of ours.
func (t *turn) hidden() bool {
	first := t.replies.first()
	return first != nil && first.kind == replyHidden
}
