package proxy

import (
	"hash/maphash"

	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

// A client that has described a prepared statement relies on what it was told: parameter types and
// columns. PostgreSQL guarantees them for the life of the statement, and fails a Bind with "cached
// plan must not change result type" otherwise. When the proxy parses such a text again on another
// server, where DDL may have changed its meaning, it keeps that promise: the statement is parsed
// and described there first, and the turn goes on only if the description is still the same.

// described notes what the server answered to a Describe of a statement ('t', then 'T' or 'n').
func (s *session) described(st *statement, typ byte, msg []byte) {
	t := s.turn
	sum := maphash.Bytes(s.proxy.seed, msg)
	if typ == 't' {
		t.shape = sum
		return
	}
	st.shape = combine(t.shape, sum)
}

// combine makes one number of two; never 0, which stands for "not described".
func combine(a, b uint64) uint64 { return (a*31+b)*31 | 1 }

// unverified lists the statements that the turn's part uses, that srv lacks, and whose description
// the client relies on.
func (s *session) unverified(srv *backend.Server) []*statement {
	t := s.turn
	t.verify = t.verify[:0]
	if t.plain {
		return nil
	}
	for i := range t.ops {
		o := &t.ops[i]
		if (o.typ != 'B' && o.typ != 'D') || o.stmt == nil || o.stmt.shape == 0 || o.unnamed || o.stmt.raw {
			continue
		}
		if has, stale := srv.Statements.Has(o.stmt.Prepared); !has || stale {
			t.verify = append(t.verify, o.stmt)
		}
	}
	return t.verify
}

// verifyFirst parses and describes them, in a Sync group of its own.
func (s *session) verifyFirst(srv *backend.Server) {
	t := s.turn
	t.own()
	s.phase = phaseVerifying
	out := s.proxy.message[:0]
	for _, st := range t.verify {
		out = s.ensure(srv, st, out)
		out = wire.AppendTarget(out, 'D', 'S', st.Name)
	}
	t.replies.reset()
	t.verified, t.refusal = 0, nil
	srv.Link.Write(append(out, syncMessage...))
	s.proxy.message = out[:0]
}

// verifying takes the answers.
func (r *reader) verifying(typ byte, msg []byte) backend.Disposal {
	s, t := r.s, r.s.turn
	switch typ {
	case 't':
		t.shape = maphash.Bytes(s.proxy.seed, msg)
	case 'T', 'n':
		st := t.verify[min(t.verified, len(t.verify)-1)]
		if !s.sameShape(st, msg) && t.refusal == nil {
			t.refusal = planChanged()
		}
		t.verified++
	case 'E':
		body := wire.Body(msg)
		t.refusal = &refusal{severity: severityError, code: string(wire.ErrorField(body, 'C')), message: string(wire.ErrorField(body, 'M')),
			detail: string(wire.ErrorField(body, 'D')), hint: string(wire.ErrorField(body, 'H'))}
	case 'Z':
		s.verified(r, msg)
	}
	return backend.Swallow
}

// sameShape compares what a server says of st with what its client was told. A text that had no
// columns, such as a FETCH from a cursor that did not exist yet, promised none.
func (s *session) sameShape(st *statement, rows []byte) bool {
	params := s.turn.shape
	return st.shape == combine(params, maphash.Bytes(s.proxy.seed, rows)) ||
		st.shape == combine(params, maphash.Bytes(s.proxy.seed, noData))
}

var noData = wire.AppendEmpty(nil, 'n')

// verified goes on with the turn, or fails it as the server itself would have: inside a transaction
// the server is made to fail it, too.
func (s *session) verified(r *reader, msg []byte) {
	t := s.turn
	status := msg[len(msg)-1]
	if t.refusal == nil {
		s.sendOn(r.srv)
		return
	}
	for _, st := range t.verify {
		r.srv.Statements.Stale(st.Prepared)
	}
	if status == 'T' {
		r.srv.Statements.SetUnnamed(nil)
		r.srv.Link.Write(failPlan)
		return
	}
	r.ended = true
	s.status = status
	if status == 'I' {
		s.dirty = true
		s.giveBack()
	}
	s.refuse(t.refusal)
}

var failPlan = wire.AppendQuery(nil, []byte(
	"DO $cst$ BEGIN RAISE EXCEPTION USING ERRCODE = '0A000', MESSAGE = '"+planMessage+"'; END $cst$"))

const planMessage = "cached plan must not change result type"
