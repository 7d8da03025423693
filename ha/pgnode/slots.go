package pgnode

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// slotPrefix begins the names of the physical slots that are ours to make and to drop.
const slotPrefix = "cstproxy_"

// SlotName is the name of the physical slot that a standby uses on whatever node it follows: made
// from its application_name, or from its id where it has none.
func SlotName(n topology.Node) string {
	if n.AppName == "" {
		return fmt.Sprintf("%snode%d", slotPrefix, n.ID)
	}
	var b strings.Builder
	for _, r := range strings.ToLower(n.AppName) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
			b.WriteRune(r)
		} else {
			b.WriteByte('_')
		}
	}
	const most = 63 - len(slotPrefix)
	name := b.String()
	return slotPrefix + name[:min(len(name), most)]
}

// Slot is one physical replication slot.
type Slot struct {
	Name   string
	Active bool
	// Restart is the oldest position that it keeps; 0 when it keeps nothing yet.
	Restart topology.LSN
	// Lost: it has lost log that its standby may need (wal_status, version 13).
	Lost bool
}

// Slots lists the physical slots.
func (c *Conn) Slots(ctx context.Context) ([]Slot, error) {
	rows, err := c.query(ctx, `SELECT j->>'slot_name', (j->>'active')::bool, j->>'restart_lsn', coalesce(j->>'wal_status', '') = 'lost'
FROM (SELECT to_jsonb(s) AS j FROM pg_replication_slots AS s WHERE slot_type = 'physical' AND NOT temporary) AS s ORDER BY 1`)
	if err != nil {
		return nil, err
	}
	slots := make([]Slot, len(rows))
	for i, row := range rows {
		f := fields{row: row}
		slots[i] = Slot{Name: f.text(), Active: f.isTrue(), Restart: f.lsn(), Lost: f.isTrue()}
		if f.err != nil {
			return nil, &Failure{Cause: Unclassified, Message: f.err.Error(), err: f.err}
		}
	}
	return slots, nil
}

// ErrSlotName is a name that PostgreSQL would not take for a slot.
var ErrSlotName = errors.New("a slot's name is 1 to 63 of a-z, 0-9 and _")

func slotNameIsValid(name string) bool {
	ok, err := regexp.MatchString(`^[a-z0-9_]{1,63}$`, name)
	return err == nil && ok
}

// MakeSlot makes a physical slot unless it is there. It keeps log from the moment of its making, on
// a standby, too, where it must be moved on by AdvanceSlot, or its log piles up.
func (c *Conn) MakeSlot(ctx context.Context, name string) error {
	if !slotNameIsValid(name) {
		return fmt.Errorf("make slot %q: %w", name, ErrSlotName)
	}
	_, err := c.query(ctx, "SELECT pg_create_physical_replication_slot("+quoted(name)+", true) WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = "+quoted(name)+")")
	var pg *pgconn.PgError
	if err != nil && !(errors.As(err, &pg) && pg.Code == "42710") { // another member made it
		return fmt.Errorf("make slot %s: %w", name, err)
	}
	return nil
}

// AdvanceSlot moves a slot that nobody uses to a position that is not ahead of the server's own;
// one that is in use, or further already, is left alone. From version 11. Slots on standbys are
// kept in step with the primary's by it, so that after a promotion the others find the log that
// they have not got yet.
func (c *Conn) AdvanceSlot(ctx context.Context, name string, to topology.LSN) error {
	_, err := c.query(ctx, "SELECT pg_replication_slot_advance(slot_name, "+quoted(to.String())+") FROM pg_replication_slots WHERE slot_name = "+quoted(name)+
		" AND slot_type = 'physical' AND NOT active AND restart_lsn < "+quoted(to.String()))
	if err != nil {
		return fmt.Errorf("advance slot %s: %w", name, err)
	}
	return nil
}

// DropSlot drops one of our slots that nobody uses. A user's own, or one in use, is left alone.
func (c *Conn) DropSlot(ctx context.Context, name string) error {
	_, err := c.query(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = "+quoted(name)+
		" AND slot_type = 'physical' AND NOT active AND left(slot_name, "+fmt.Sprint(len(slotPrefix))+") = '"+slotPrefix+"'")
	if err != nil {
		return fmt.Errorf("drop slot %s: %w", name, err)
	}
	return nil
}

// KeepSlots has exactly the slots of want among ours: missing ones are made, present ones moved on to
// the position (0: where they are), lost ones made anew, and others of have that nobody uses dropped. What
// was made since have was read stays: somebody needs it.
func (c *Conn) KeepSlots(ctx context.Context, have []Slot, want map[string]topology.LSN) error {
	for _, s := range have {
		if _, wanted := want[s.Name]; (!wanted || s.Lost) && strings.HasPrefix(s.Name, slotPrefix) {
			if err := c.DropSlot(ctx, s.Name); err != nil {
				return err
			}
		}
	}
	for name, to := range want {
		if err := c.MakeSlot(ctx, name); err != nil {
			return err
		}
		if to == 0 {
			continue
		}
		if err := c.AdvanceSlot(ctx, name, to); err != nil {
			return err
		}
	}
	return nil
}
