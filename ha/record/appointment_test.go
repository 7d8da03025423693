package record

import (
	"errors"
	"testing"
)

func appoint(id OperationID) Entry {
	return Entry{Cluster: cluster, Appoint: &Appoint{Make: &Appointment{ID: id, Node: 2, Epoch: 7, At: 1000, By: "dba", Why: "patches"}}}
}

func TestAnAppointmentEndsWithItsSwitchover(t *testing.T) {
	s := log(t, &State{}, found(), adopt(), appoint(1))
	if c := s.Clusters[cluster]; c.Appointment == nil || c.LastOperation != 1 {
		t.Fatalf("%+v", c)
	}
	o := Operation{ID: 2, Kind: Switch, From: 7, To: 8, Step: Intent, Node: 2, By: "dba", Appointment: 1}
	s = log(t, s, begin(o))
	c := s.Clusters[cluster]
	if c.Appointment != nil || len(c.Appointments) != 1 || c.Appointments[0].Outcome != Completed || c.Appointments[0].Note != "begun as task 2" {
		t.Errorf("after it has begun: %+v, %+v", c.Appointment, c.Appointments)
	}
	s = log(t, s, to(s, Done, func(a *Advance) { a.To.Outcome = Undone }))
	o.ID, o.To = 3, 9
	if _, err := s.Apply(begin(o)); !errors.Is(err, ErrStale) {
		t.Errorf("it was kept twice: %v", err)
	}
}

func TestAnAppointmentDoesNotOutliveItsEpoch(t *testing.T) {
	s := log(t, &State{}, found(), adopt(), appoint(1))
	f := failover()
	f.ID = 2
	s = log(t, s, begin(f))
	if s.Clusters[cluster].Appointment == nil {
		t.Error("a failover that may be undone has dropped it")
	}
	for _, step := range []Step{Freeze, Fence} {
		s = log(t, s, to(s, step, nil))
	}
	s = log(t, s, to(s, Promote, promote))
	s = log(t, s, to(s, After, func(a *Advance) { cross(a); a.Epoch.Operation = 2 }))
	c := s.Clusters[cluster]
	if c.Appointment != nil || len(c.Appointments) != 1 || c.Appointments[0].Outcome != Failed || c.Appointments[0].Note != "overtaken: epoch 8 began" {
		t.Errorf("in the next epoch: %+v, %+v", c.Appointment, c.Appointments)
	}
	if _, err := s.Apply(appoint(3)); !errors.Is(err, ErrStale) {
		t.Errorf("one of a former epoch was taken: %v", err)
	}
}

func TestOneAppointmentAtATime(t *testing.T) {
	s := log(t, &State{}, found(), adopt(), appoint(1))
	drop := func(id OperationID) Entry {
		return Entry{Cluster: cluster, Appoint: &Appoint{Drop: id, Note: "called off by dba"}}
	}
	for _, c := range []struct {
		what string
		e    Entry
		want error
	}{
		{"a second one", appoint(2), ErrStale},
		{"one with a number that was given", appoint(1), ErrStale},
		{"dropping another one", drop(2), ErrStale},
		{"nothing", Entry{Cluster: cluster, Appoint: &Appoint{}}, ErrMalformed},
		{"both", Entry{Cluster: cluster, Appoint: &Appoint{Drop: 1, Make: appoint(2).Appoint.Make}}, ErrMalformed},
		{"a failover that keeps it", begin(Operation{ID: 2, Kind: Failover, From: 7, To: 8, Step: Intent, Appointment: 1}), ErrMalformed},
		{"a switchover that keeps another one", begin(Operation{ID: 2, Kind: Switch, From: 7, To: 8, Step: Intent, Appointment: 9}), ErrStale},
	} {
		if next, err := s.Apply(c.e); !errors.Is(err, c.want) || next != s {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	s = log(t, s, drop(1), appoint(2))
	if c := s.Clusters[cluster]; c.Appointment.ID != 2 || len(c.Appointments) != 1 || c.Appointments[0].Note != "called off by dba" {
		t.Errorf("%+v", c)
	}
}
