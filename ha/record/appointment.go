package record

import (
	"fmt"
	"slices"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// Appointment is a switchover that an operator wants at a later time, once.
type Appointment struct {
	// ID is from the numbers of operations; the switchover itself has another one.
	ID OperationID `json:"id"`
	// Node is who shall be the primary; 0: the best of then.
	Node topology.NodeID `json:"node,omitempty"`
	// Epoch is the one in which it was asked for. It ends with it: what it was for may have happened.
	Epoch topology.Epoch `json:"epoch"`
	// At is the time by the clock of whoever leads then, in milliseconds since 1970.
	At  int64  `json:"at"`
	By  string `json:"by"`
	Why string `json:"why,omitempty"`
	// Outcome is Open until it is over; then Completed says that it has begun, and Note more.
	Outcome Outcome `json:"outcome,omitempty"`
	Note    string  `json:"note,omitempty"`
}

// Appoint makes an Appointment, of which there is one at most, or ends the one with the number Drop
// without it having begun; Note says why. What is made has the next number of an operation, and the
// current epoch.
type Appoint struct {
	Make *Appointment `json:"make,omitempty"`
	Drop OperationID  `json:"drop,omitempty"`
	Note string       `json:"note,omitempty"`
}

// maxAppointments is how many that are over a cluster remembers.
const maxAppointments = 20

func (c *Cluster) appoint(a *Appoint) error {
	if (a.Make == nil) == (a.Drop == 0) {
		return malformed("an appointment is made, or one is dropped")
	}
	if a.Make == nil {
		if c.Appointment == nil || c.Appointment.ID != a.Drop {
			return stale("appointment %d is over", a.Drop)
		}
		c.endAppointment(Failed, a.Note)
		return nil
	}
	m := *a.Make
	switch {
	case m.Node < 0 || m.At <= 0 || m.By == "" || m.Outcome != Open || m.Note != "":
		return malformed("appointment %d of %q for node %d at %d", m.ID, m.By, m.Node, m.At)
	case m.ID != c.LastOperation+1:
		return stale("appointment %d does not follow %d, the last number given", m.ID, c.LastOperation)
	case c.Epoch.Number == 0 || m.Epoch != c.Epoch.Number:
		return stale("it was asked for in epoch %d, but epoch %d is current", m.Epoch, c.Epoch.Number)
	case c.Appointment != nil:
		return stale("appointment %d is there already", c.Appointment.ID)
	}
	c.Appointment, c.LastOperation = &m, m.ID
	return nil
}

// endAppointment moves the appointment to those that are over.
func (c *Cluster) endAppointment(how Outcome, note string) {
	ended := *c.Appointment
	ended.Outcome, ended.Note = how, note
	over := append(slices.Clone(c.Appointments), ended)
	c.Appointment, c.Appointments = nil, over[max(0, len(over)-maxAppointments):]
}

// newEpoch drops an appointment of the epoch before.
func (c *Cluster) newEpoch() {
	if c.Appointment != nil {
		c.endAppointment(Failed, fmt.Sprintf("overtaken: epoch %d began", c.Epoch.Number))
	}
}

// keeps says why the operation does not keep the appointment that it names.
func (c *Cluster) keeps(o *Operation) error {
	switch {
	case o.Appointment == 0:
		return nil
	case o.Kind != Switch:
		return malformed("a %s keeps no appointment", o.Kind)
	case c.Appointment == nil || c.Appointment.ID != o.Appointment:
		return stale("appointment %d is over", o.Appointment)
	}
	return nil
}
