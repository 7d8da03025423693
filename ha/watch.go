package ha

import (
	"context"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pgnode"
)

// timing is the part of Config that the goroutines of a node obey.
type timing struct {
	interval  time.Duration
	timeout   time.Duration
	deadAfter int
}

// breath is the least time between two probes of one node, whatever asks for them: a hundred
// sessions that report the same failure must not become a hundred logins. A new epoch alone does not
// wait for it: there is one, and clients wait for its primary to be seen.
const breath = 50 * time.Millisecond

// watcher probes one node until its context ends. Between probes it listens on the kept
// connection, so that a process that dies is noticed at once.
type watcher struct {
	server *pgnode.Server
	timing func() timing
	poke   <-chan struct{}
	urge   <-chan struct{} // a poke that takes no breath
	lost   func()          // the server may have restarted
	report func(pulse)     // after each probe
	heart  *heart
	duty   func() duty
	conn   *pgnode.Conn // kept between probes; nil when there is none
	pulse  pulse        // after the last probe
}

func (w *watcher) run(ctx context.Context) {
	defer w.drop(ctx)
	asked := inTime
	for ctx.Err() == nil {
		began := time.Now()
		b := w.probe(ctx, asked)
		if ctx.Err() != nil {
			return // what a probe that was called off says, says nothing of the server
		}
		if b.asked != nil {
			w.heart.drop()
			b.heart.duty = w.duty()
		} else {
			b.heart = w.heart.look(w.duty(), w.timing().timeout)
		}
		w.pulse = w.pulse.beat(b, w.timing().deadAfter)
		w.report(w.pulse)
		asked = inTime
		if w.pulse.refusals != 1 {
			asked = w.rest(ctx, began)
		}
	}
}

func (w *watcher) drop(ctx context.Context) {
	if w.conn != nil {
		w.conn.Close(ctx)
		w.conn = nil
	}
}

// asking is why a node is probed.
type asking int

const (
	inTime asking = iota
	urged         // a new epoch has begun
)

// probe looks once. With a kept connection it asks there and knocks at the same time; without one
// the new connection is the knock. Who is urged does not knock: a login takes a server that has just
// been promoted longer than the answer for which clients wait. Of one that let nobody in before, that would say
// too much.
func (w *watcher) probe(ctx context.Context, why asking) probe {
	b := probe{at: time.Now()}
	if w.conn == nil {
		w.ask(ctx, &b)
		return b
	}
	knocked := make(chan error, 1)
	if why == urged && w.pulse.class == decide.Answers {
		knocked <- nil
	} else {
		go func() { knocked <- w.server.Knock(ctx) }()
	}
	b.observed, b.asked = w.conn.Probe(ctx)
	b.knocked = <-knocked
	if b.asked == nil {
		return b
	}
	w.lost()
	w.drop(ctx)
	if b.knocked == nil {
		w.ask(ctx, &b)
	} else {
		b.asked = b.knocked // it says more than a connection that broke
	}
	return b
}

func (w *watcher) ask(ctx context.Context, b *probe) {
	conn, err := w.server.Connect(ctx)
	if err == nil {
		b.observed, err = conn.Probe(ctx)
		if err != nil {
			conn.Close(ctx)
			err = hung(err)
		} else {
			w.conn = conn
		}
	}
	b.asked = err
}

// hung is the failure of a question right after a login: a server that let us in is not silent.
func hung(err error) error {
	if pgnode.CauseOf(err) == pgnode.Silent {
		return &pgnode.Failure{Cause: pgnode.Hung, Message: "it lets us in and does not answer: " + err.Error()}
	}
	return err
}

// rest waits for the next probe: until the interval since began is over, somebody pokes, or the
// kept connection breaks.
func (w *watcher) rest(ctx context.Context, began time.Time) asking {
	sleep, cancel := context.WithDeadline(ctx, began.Add(w.timing().interval))
	defer cancel()
	cut := make(chan error, 1)
	go func() { cut <- w.listen(sleep) }()
	var err error
	why := inTime
	select {
	case err = <-cut:
	case <-w.poke:
		cancel()
		err = <-cut
	case <-w.urge:
		cancel()
		err, why = <-cut, urged
	}
	if err != nil {
		w.lost()
		w.drop(ctx)
	}
	if pause := breath - time.Since(began); pause > 0 && why == inTime {
		select {
		case <-ctx.Done():
		case <-w.urge:
			why = urged
		case <-time.After(pause):
		}
	}
	return why
}

func (w *watcher) listen(ctx context.Context) error {
	if w.conn != nil {
		return w.conn.Await(ctx)
	}
	<-ctx.Done()
	return nil
}
