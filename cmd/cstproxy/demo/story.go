package demo

import (
	"context"
	"fmt"
	"time"
)

// story kills a standby, then the primary, over and over. Without SSH a former primary stays down, so
// that is told once.
func (d *Demo) story(ctx context.Context) {
	for round := 0; ; round++ {
		if !rest(ctx, 12*time.Second) || !d.tellStandby(ctx, round) {
			return
		}
		if !rest(ctx, 12*time.Second) || !d.tellPrimary(ctx) {
			return
		}
		if d.ssh == nil {
			d.events.add("this is all that can be shown without SSH: install openssh-server and begin again")
			return
		}
	}
}

// tellStandby is one loss of a standby; false when there is nothing more to tell.
func (d *Demo) tellStandby(ctx context.Context, round int) bool {
	victim, err := d.standby(ctx, round)
	if err != nil {
		return d.tell(ctx, err)
	}
	d.events.add("%s, a standby, is killed (SIGKILL): its reads go to the others", victim.Name)
	l, err := d.loseStandby(ctx, victim)
	if err != nil {
		return d.tell(ctx, err)
	}
	d.events.add("%s answers reads again after %.1f s; queries that failed: %d", l.victim, l.back.Seconds(), l.seen.Errors)
	return true
}

// tellPrimary is one loss of the primary.
func (d *Demo) tellPrimary(ctx context.Context) bool {
	victim, err := d.primary(ctx)
	if err != nil {
		return d.tell(ctx, err)
	}
	killed := time.Now()
	d.events.add("%s, the primary, is killed (SIGKILL): writes wait, reads go on", victim.Name)
	l, err := d.losePrimary(ctx, victim)
	if err != nil {
		return d.tell(ctx, err)
	}
	d.events.add("%s", l)
	back, err := d.restored(ctx, victim, killed)
	if err != nil {
		return d.tell(ctx, err)
	}
	if back > 0 {
		d.events.add("%s is back as a standby by itself, %.1f s after it was killed", victim.Name, back.Seconds())
	}
	return true
}

// tell says what went wrong; the story goes on after it, unless the demo ends.
func (d *Demo) tell(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	d.events.add("not as it should be: %v", err)
	return true
}

// String is what a lost primary cost.
func (l loss) String() string {
	text := fmt.Sprintf("%s took over: writes waited %.1f s at most, %d connections lost, %d of %d acknowledged rows missing",
		l.successor, l.waited.Seconds(), l.seen.Lost, l.missing, l.acked)
	if l.seen.Repeats > 0 {
		text += fmt.Sprintf(", %d transactions repeated", l.seen.Repeats)
	}
	if l.seen.Errors > 0 {
		text += fmt.Sprintf(", %d errors", l.seen.Errors)
	}
	return text
}
