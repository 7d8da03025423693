package proxy

import (
	"strconv"
	"testing"
)

// The end of its connection tells a client that its cancel request cannot hit a later query any more.
func TestACancellerThatSendsNoMoreIsClosedWhenItsRequestIsTaken(t *testing.T) {
	w := newWorld(t, nil)
	c := w.login()
	c.send(encode(t, `Query "insert into t values (1)"`, false))
	canceller := w.accept(ListenAuto)
	key := c.session.key
	canceller.link.eof = true
	canceller.send(encode(t, "CancelRequest "+strconv.Itoa(int(key.pid))+" "+strconv.Quote(key.secret), false))
	if len(w.strikes) != 1 {
		t.Fatalf("%d cancel requests were passed on, want 1", len(w.strikes))
	}
	if canceller.link.closed {
		t.Error("its connection was closed before the server had taken the request")
	}
	w.strikes[0].done(nil)
	w.settle()
	if !canceller.link.closed || len(w.p.sessions) != 1 {
		t.Errorf("its connection was not closed behind that; %d sessions, want 1", len(w.p.sessions))
	}
}
