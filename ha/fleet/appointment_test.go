package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/record"
)

func later(after time.Duration) Command {
	return Command{Cluster: "c", Verb: Appoint, At: time.Now().Add(after).UnixMilli(), Order: decide.Order{Node: 2, By: "dba", Why: "patches"}}
}

func TestAPlannedSwitchoverIsBegunByWhoeverLeadsThen(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	leader := w.leader(w.members...)
	rest := w.others(leader)
	plan := later(3 * terms.Length)
	id, err := rest[0].fleet.Command(t.Context(), plan)
	must(t, err)
	if c, _ := rest[0].fleet.Record("c"); c.Appointment == nil || c.Appointment.ID != id || c.Appointment.Epoch != 1 {
		t.Fatalf("planned as %d: %+v", id, c.Appointment)
	}
	leader.stop()
	w.await(func() error {
		c, err := rest[0].fleet.Record("c")
		must(t, err)
		for i := id; i <= c.LastOperation; i++ {
			if op := operationOf(c, i); op != nil && op.Appointment == id {
				if op.Kind != record.Switch || op.Node != 2 || op.By != "dba" || !strings.HasSuffix(op.Why, "patches") {
					t.Errorf("it began %+v", op)
				}
				if early := time.Until(time.UnixMilli(plan.At)); early > 0 {
					t.Errorf("it began %v early", early)
				}
				return nil
			}
		}
		return fmt.Errorf("it has not begun: %+v, %+v", c.Appointment, c.Appointments)
	})
	if c, _ := rest[0].fleet.Record("c"); c.Appointment != nil || len(c.Appointments) != 1 || c.Appointments[0].Outcome != record.Completed {
		t.Errorf("after it has begun: %+v", c.Appointments)
	}
	w.sound()
}

func TestAPlannedSwitchoverCanBeCalledOffAndIsNotBegunLate(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	leader := w.leader(w.members...)
	asked := w.others(leader)[0].fleet
	cancel := Command{Cluster: "c", Verb: Cancel, Order: decide.Order{By: "dba"}}
	refusedBy := func(what string, c Command, kind error, says string) {
		t.Helper()
		if _, err := asked.Command(t.Context(), c); !errors.Is(err, kind) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	unknown := later(time.Hour)
	unknown.Node = 9
	refusedBy("nothing is planned", cancel, ha.ErrRefused, "no switchover of c is planned")
	refusedBy("of the past", later(-time.Second), ha.ErrRefused, "has passed")
	refusedBy("an unknown node", unknown, ha.ErrUnknown, "no node 9")
	_, err := asked.Command(t.Context(), later(time.Hour))
	must(t, err)
	refusedBy("a second one", later(2*time.Hour), ha.ErrRefused, "planned for")
	_, err = asked.Command(t.Context(), cancel)
	must(t, err)
	if c, _ := asked.Record("c"); c.Appointment != nil || c.Appointments[0].Note != "called off by dba" {
		t.Errorf("called off: %+v", c.Appointments)
	}

	c, err := leader.fleet.Record("c")
	must(t, err)
	first := c.Appointments[0].ID
	second, err := asked.Command(t.Context(), later(3*time.Hour))
	must(t, err)
	again := request{Command: cancel, Last: first, Drop: first} // its answer was lost
	_, err = leader.fleet.command(t.Context(), again)
	must(t, err)
	again.By = "somebody who saw only the first one"
	if _, err = leader.fleet.command(t.Context(), again); err == nil || !strings.Contains(err.Error(), "another switchover of c has been planned") {
		t.Errorf("calling off the one before: %v", err)
	}
	if c, err = leader.fleet.Record("c"); err != nil || c.Appointment == nil || c.Appointment.ID != second {
		t.Fatalf("what was called off before takes another one with it: %+v, %v", c.Appointments, err)
	}
	_, err = asked.Command(t.Context(), cancel)
	must(t, err)
	c, err = leader.fleet.Record("c")
	must(t, err)
	missed := record.Appointment{ID: c.LastOperation + 1, Epoch: 1, At: time.Now().Add(-keepWithin - time.Second).UnixMilli(), By: "dba"}
	must(t, leader.log.Propose(t.Context(), record.Entry{Cluster: "c", Appoint: &record.Appoint{Make: &missed}}))
	w.await(func() error {
		c, err := asked.Record("c")
		must(t, err)
		if len(c.Appointments) != 3 || c.Appointments[2].Note != "missed: nobody led at its time" || c.Appointments[2].Outcome != record.Failed {
			return fmt.Errorf("%+v", c.Appointments)
		}
		return nil
	})
	if c, _ := asked.Record("c"); c.Operation != nil || c.Epoch.Number != 1 {
		t.Errorf("something began: %+v", c.Operation)
	}
}
