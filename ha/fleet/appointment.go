package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/record"
)

// An appointed switchover is in the log, and begun by whoever leads when its time has come. Appointments are
// the only thing that goes by wall clocks: an operator's "at three" means nothing else.
const (
	// keepWithin is how long after its time an appointment may begin: an election, and what refuses a
	// switchover for a moment, may pass. Later it would be a surprise.
	keepWithin = time.Minute
	// lookAgain bounds the wait for its time, in case the clock is set meanwhile, and is the pause after a
	// refusal.
	lookAgain = time.Second
	// appointLevel is the record.Level that reads an appointment.
	appointLevel = 3
)

// appoint is what the leader does with the orders Appoint and Cancel.
func (f *Fleet) appoint(ctx context.Context, s *seat, q request) (record.Operation, error) {
	for {
		state, _ := f.parts.Log.State()
		known := clusterOf(state, q.Cluster)
		if id, taken := q.appointed(known); taken {
			return record.Operation{ID: id, Kind: record.Switch, Node: q.Node, By: q.By, Why: q.Why}, nil
		}
		entry, err := f.appointment(s, q, known)
		if err == nil && entry.Appoint.Make != nil && len(known.Appointments) == 0 { // later ones are read by whoever has read the first
			err = f.readableAt(ctx, s, appointLevel)
		}
		if err != nil || q.Trial {
			return record.Operation{}, err
		}
		err = f.parts.Log.Propose(ctx, entry)
		if err != nil && (!errors.Is(err, record.ErrStale) || ctx.Err() != nil) {
			return record.Operation{}, err
		}
		if err == nil && q.Verb == Cancel {
			return record.Operation{}, nil
		}
	}
}

// appointed says whether the record has what the order wants, from an attempt before at most.
func (q *request) appointed(c *record.Cluster) (record.OperationID, bool) {
	if q.Verb == Cancel {
		return 0, slices.ContainsFunc(c.Appointments, func(a record.Appointment) bool {
			return (a.ID == q.Drop || q.Drop == 0 && a.ID > q.Last) && a.Note == cancelledBy(q.By)
		})
	}
	a := c.Appointment
	if a == nil || a.ID <= q.Last || a.By != q.By || a.At != q.At || a.Node != q.Node || a.Why != q.Why {
		return 0, false
	}
	return a.ID, true
}

func cancelledBy(name string) string { return "called off by " + name }

// appointment is the order as an entry, or why it is refused.
func (f *Fleet) appointment(s *seat, q request, c *record.Cluster) (record.Entry, error) {
	e := record.Entry{Cluster: q.Cluster, Proposer: f.cfg.Name}
	f.mu.Lock()
	there := q.Node == 0 || s.node(q.Node) != nil
	f.mu.Unlock()
	switch at := time.UnixMilli(q.At); {
	case q.By == "":
		return e, refused("the order does not say whose it is")
	case q.Verb == Cancel && c.Appointment == nil:
		return e, refused("no switchover of %s is planned", q.Cluster)
	case q.Verb == Cancel && q.Drop != 0 && c.Appointment.ID != q.Drop:
		return e, refused("another switchover of %s has been planned meanwhile, for %s; look at it, and repeat this if you mean that one",
			q.Cluster, time.UnixMilli(c.Appointment.At).Format(time.DateTime))
	case q.Verb == Cancel:
		e.Appoint = &record.Appoint{Drop: c.Appointment.ID, Note: cancelledBy(q.By)}
		return e, nil
	case !there:
		return e, &failure{Kind: "unknown", Text: fmt.Sprintf("cluster %s has no node %d", q.Cluster, q.Node)}
	case c.Appointment != nil:
		return e, refused("a switchover of %s is planned for %s already; call it off first: cstproxy ctl switch --cancel",
			q.Cluster, time.UnixMilli(c.Appointment.At).Format(time.DateTime))
	case c.Epoch.Number == 0:
		return e, refused("cluster %s has no primary yet", q.Cluster)
	case !at.After(time.Now()):
		return e, refused("%s has passed, by the clock of member %s, which leads", at.Format(time.DateTime), f.cfg.Name)
	}
	e.Appoint = &record.Appoint{Make: &record.Appointment{ID: c.LastOperation + 1, Node: q.Node, Epoch: c.Epoch.Number, At: q.At, By: q.By, Why: q.Why}}
	return e, nil
}

// keepAppointments begins a cluster's appointment when its time has come, while this member leads.
func (f *Fleet) keepAppointments(ctx context.Context, s *seat) {
	refusal := ""
	for ctx.Err() == nil {
		changed := f.parts.Log.Changed()
		state, _ := f.parts.Log.State()
		a := clusterOf(state, s.Name).Appointment
		if a == nil {
			refusal = ""
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		left, wait := time.Until(time.UnixMilli(a.At)), lookAgain
		switch {
		case left > 0:
			wait = min(left, lookAgain)
		case left < -keepWithin:
			f.propose(ctx, record.Entry{Cluster: s.Name, Proposer: f.cfg.Name, Appoint: &record.Appoint{Drop: a.ID, Note: missed(refusal)}})
			continue
		default:
			if err := f.keepAppointment(ctx, s, a); err != nil && ctx.Err() == nil && err.Error() != refusal {
				refusal = err.Error()
				f.log.Warn("planned switchover cannot begin", zap.String("cluster", s.Name), zap.Uint64("task", uint64(a.ID)), zap.String("why", refusal))
			}
		}
		pause := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-pause.C:
		}
		pause.Stop()
	}
}

func missed(refusal string) string {
	if refusal == "" {
		return "missed: nobody led at its time"
	}
	return "missed: " + refusal
}

// keepAppointment begins the switchover; the same entry of the log ends the appointment.
func (f *Fleet) keepAppointment(ctx context.Context, s *seat, a *record.Appointment) error {
	if err := f.settle(ctx, s); err != nil {
		return err
	}
	state, _ := f.parts.Log.State()
	c := clusterOf(state, s.Name)
	if c.Froze != nil { // whoever did that has the servers in hand, and may not know of the plan
		return fmt.Errorf("the cluster is frozen by %s", c.Froze.By)
	}
	entry, err := decide.NewSwitch(f.picture(s, c), decide.Order{Node: a.Node, By: a.By, Why: a.Why})
	if err != nil {
		return err
	}
	entry.Begin.Operation.Appointment = a.ID
	return f.parts.Log.Propose(ctx, entry)
}
