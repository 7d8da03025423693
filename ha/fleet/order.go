package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/record"
)

// Verb is what an operator wants done.
type Verb string

// The verbs of an operator, as `cstproxy ctl` calls them.
const (
	Switch   Verb = "switch"
	Failover Verb = "failover"
	Repair   Verb = "repair"
	Clone    Verb = "clone"
	Restart  Verb = "restart"
	Froze    Verb = "froze"
	Unfroze  Verb = "unfroze"
	Appoint  Verb = "appoint" // a switchover at Command.At
	Cancel   Verb = "cancel"  // drops what was appointed
)

// Verbs are all of them.
func Verbs() []Verb {
	return []Verb{Switch, Failover, Repair, Clone, Restart, Froze, Unfroze, Appoint, Cancel}
}

// Command is an operator's order for a cluster. Order.By is the operator's name, for the history.
type Command struct {
	Cluster string `json:"cluster"`
	Verb    Verb   `json:"verb"`
	// At is when a switchover is appointed for, in milliseconds since 1970.
	At int64 `json:"at,omitempty"`
	decide.Order
}

// request is a Command on its way to the leader.
type request struct {
	Command
	// Last is the record's LastOperation when the order was given. An operation of the same order
	// with a higher number is this one, begun by an attempt whose answer was lost.
	Last record.OperationID `json:"last"`
	// Drop is the appointment that Cancel means, as known where the order was given; 0: none was known there,
	// and it means whichever there is.
	Drop record.OperationID `json:"drop,omitempty"`
	// Trial asks only what would begin.
	Trial bool `json:"trial,omitempty"`
}

// Command has the leader begin what an operator wants, and returns the operation's number; 0 for
// Froze and Unfroze, which are done at once. It begins at most once, also when the leadership moves
// meanwhile. nil means agreed on, not done: TaskLog and Record show what becomes of it.
//
// Errors: ha.ErrUnknown, no such cluster or node; ha.ErrRefused, with the sentence for the operator;
// ErrNoLeader, nothing was begun; consensus.ErrUnknownOutcome.
func (f *Fleet) Command(ctx context.Context, c Command) (record.OperationID, error) {
	op, err := f.order(ctx, request{Command: c})
	return op.ID, err
}

// Foresee says what Command would begin now, and begins nothing; the zero Operation for Froze and
// Unfroze. Errors as of Command.
func (f *Fleet) Foresee(ctx context.Context, c Command) (record.Operation, error) {
	return f.order(ctx, request{Command: c, Trial: true})
}

func (f *Fleet) order(ctx context.Context, q request) (record.Operation, error) {
	if err := f.configured(q.Cluster); err != nil {
		return record.Operation{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	state, _ := f.parts.Log.State()
	known := clusterOf(state, q.Cluster)
	if q.Last = known.LastOperation; known.Appointment != nil {
		q.Drop = known.Appointment.ID
	}
	var op record.Operation
	err := f.ask(ctx, commandMethod, q, &op)
	if err == nil && !q.Trial {
		f.readUp(ctx, q.Cluster, func(c *record.Cluster) bool { return q.shows(c, op.ID) })
	}
	return op, err
}

// shows says whether the record knows that the order was taken.
func (q *request) shows(c *record.Cluster, id record.OperationID) bool {
	switch q.Verb {
	case Froze:
		return c.Froze != nil
	case Unfroze:
		return c.Froze == nil
	case Cancel:
		return c.Appointment == nil || q.Drop != 0 && c.Appointment.ID != q.Drop
	}
	return c.LastOperation >= id
}

// ownRecord bounds the wait for what the leader has committed to be in this member's own record: who
// gave an order here looks for it here next.
const ownRecord = time.Second

func (f *Fleet) readUp(ctx context.Context, cluster string, there func(*record.Cluster) bool) {
	ctx, cancel := context.WithTimeout(ctx, ownRecord)
	defer cancel()
	for {
		changed := f.parts.Log.Changed()
		if state, _ := f.parts.Log.State(); there(clusterOf(state, cluster)) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// command is what the leader does with an order. A proposal that another one has overtaken is made
// again, of what is known then.
func (f *Fleet) command(ctx context.Context, q request) (record.Operation, error) {
	s, err := f.seatOf(ctx, q.Cluster)
	if err != nil {
		return record.Operation{}, err
	}
	if q.Verb == Appoint || q.Verb == Cancel {
		return f.appoint(ctx, s, q)
	}
	if q.Verb != Froze && q.Verb != Unfroze {
		if err := f.settle(ctx, s); err != nil {
			return record.Operation{}, err
		}
	}
	for {
		state, _ := f.parts.Log.State()
		known := clusterOf(state, q.Cluster)
		if op := q.begun(known); op != nil {
			return *op, nil
		}
		p := f.picture(s, known)
		if q.Node != 0 && !slices.ContainsFunc(p.Nodes, func(n decide.Node) bool { return n.ID == q.Node }) {
			return record.Operation{}, &failure{Kind: "unknown", Text: fmt.Sprintf("cluster %s has no node %d", q.Cluster, q.Node)}
		}
		entry, err := q.entry(p)
		if err != nil {
			return record.Operation{}, &failure{Kind: "refused", Text: err.Error()}
		}
		var op record.Operation
		if entry.Begin != nil {
			op = entry.Begin.Operation
		}
		if q.Trial {
			return op, nil
		}
		if room := decide.MakeRoom(p, q.Order); room != nil {
			if err := f.parts.Log.Propose(ctx, *room); err != nil && !errors.Is(err, record.ErrStale) {
				return record.Operation{}, err
			}
			continue
		}
		err = f.parts.Log.Propose(ctx, entry)
		if err == nil || !errors.Is(err, record.ErrStale) || ctx.Err() != nil {
			return op, err
		}
	}
}

// settle waits until a leader that has just come has heard the members' reports: of a cluster that
// nobody has told it about it would say that nothing works.
func (f *Fleet) settle(ctx context.Context, s *seat) error {
	left := s.since + f.cfg.Terms.Length - Now()
	if left <= 0 || f.alone() {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begun finds the operation that an earlier attempt of the same order began; nil when none did.
func (q *request) begun(c *record.Cluster) *record.Operation {
	if q.Trial || c.LastOperation <= q.Last {
		return nil
	}
	for id := q.Last + 1; id <= c.LastOperation; id++ {
		op := operationOf(c, id)
		if op != nil && op.Kind == record.Kind(q.Verb) && op.By == q.By && op.Mode == q.Mode && op.Accept == q.Accept &&
			(q.Node == 0 || op.Node == q.Node) && strings.HasSuffix(op.Why, q.Why) {
			return op
		}
	}
	return nil
}

// operationOf finds an operation among those under way and those that ended; nil when it is forgotten.
func operationOf(c *record.Cluster, id record.OperationID) *record.Operation {
	if op := c.Find(id); op != nil {
		return op
	}
	for i := range c.Past {
		if c.Past[i].ID == id {
			return &c.Past[i]
		}
	}
	return nil
}

// entry says an order as an entry of the log, or why it is refused.
func (c *Command) entry(p decide.Picture) (record.Entry, error) {
	switch c.Verb {
	case Switch:
		return decide.NewSwitch(p, c.Order)
	case Failover:
		return decide.NewFailover(p, c.Order)
	case Repair:
		return decide.NewRepair(p, c.Order)
	case Clone:
		return decide.NewClone(p, c.Order)
	case Restart:
		return decide.NewRestart(p, c.Order)
	case Froze:
		if c.By == "" {
			return record.Entry{}, errors.New("the order does not say whose it is")
		}
		return decide.NewFroze(p, c.Order), nil
	case Unfroze:
		return decide.NewUnfroze(p), nil
	}
	return record.Entry{}, fmt.Errorf("there is no order %q: %w", c.Verb, ha.ErrUnknown)
}
