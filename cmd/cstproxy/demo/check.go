package demo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// tolerance is how far a standby's share of the reads may be from its weight's, in points of a
// hundred.
const tolerance = 3.0

// check runs the story once and says of each promise whether it was kept. The error is nil only
// when all were.
func (d *Demo) check(ctx context.Context) error {
	steps := []struct {
		promise string
		judge   func(context.Context) (string, error)
	}{
		{"reads spread over the standbys by their weights, the primary sees none", d.checkReads},
		{"writes go to the primary, and a session sees its own", d.checkWrites},
		{d.standbyPromise(), d.checkStandby},
		{"killing the primary costs no connection and no acknowledged row", d.checkPrimary},
	}
	var errs []error
	for _, s := range steps {
		found, err := s.judge(ctx)
		mark := "kept  "
		if err != nil {
			mark = "BROKEN"
			errs = append(errs, fmt.Errorf("%s: %w", s.promise, err))
		}
		d.say("%s  %s: %s", mark, s.promise, found)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

// run has clients work until enough reads or writes are counted, and returns what happened.
func (d *Demo) run(ctx context.Context, clients []pace, enough func(tally) bool) (tally, error) {
	before, _, _ := d.load.now()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { d.load.run(ctx, clients) })
	for rest(ctx, 20*time.Millisecond) {
		now, _, _ := d.load.now()
		if t := now.since(before); enough(t) || t.Errors > 0 {
			break
		}
	}
	timeout := ctx.Err()
	cancel()
	wg.Wait()
	now, _, last := d.load.now()
	t := now.since(before)
	if t.Errors > 0 {
		return t, fmt.Errorf("%d failed, the last with: %w", t.Errors, last)
	}
	return t, timeout
}

// warm reads until a standby answers: before cstproxy has read a database's catalogue it cannot
// know what a statement does, and sends it to the primary.
func (d *Demo) warm(ctx context.Context) error {
	_, err := d.run(ctx, make([]pace, 1), func(t tally) bool {
		return sum(t.Reads) > t.Reads[d.cluster.Primary().Name]
	})
	return err
}

func (d *Demo) checkReads(ctx context.Context) (string, error) {
	if err := d.warm(ctx); err != nil {
		return "no standby ever answered a read", err
	}
	t, err := d.run(ctx, make([]pace, 8), func(t tally) bool { return sum(t.Reads) >= 20000 })
	if err != nil {
		return t.String(), err
	}
	return t.String(), d.shares(t)
}

// shares judges the reads of a tally; the demo's standbys all have the same weight.
func (d *Demo) shares(t tally) error {
	if n := t.Reads[d.cluster.Primary().Name]; n > 0 {
		return fmt.Errorf("the primary answered %d reads", n)
	}
	due := 100 / float64(len(d.cluster.Standbys()))
	for _, s := range d.cluster.Standbys() {
		share := 100 * float64(t.Reads[s.Name]) / float64(sum(t.Reads))
		if math.Abs(share-due) > tolerance {
			return fmt.Errorf("%s answered %.1f %% of the reads instead of %.1f %%", s.Name, share, due)
		}
	}
	return nil
}

func (d *Demo) checkWrites(ctx context.Context) (string, error) {
	const count = 1000
	t, err := d.run(ctx, []pace{{write: true, id: 1}, {write: true, id: 2}}, func(t tally) bool { return sum(t.Writes) >= count })
	if err != nil {
		return t.String(), err
	}
	if n := t.Writes[d.cluster.Primary().Name]; n != sum(t.Writes) {
		return t.String(), errors.New("a standby answered a write")
	}
	got, err := d.cluster.Primary().PsqlIn(ctx, database, "SELECT (SELECT sum(balance) FROM account) = (SELECT sum(amount) FROM transfer), count(*) >= 1000 FROM transfer")
	if err == nil && got != "t\tt" {
		err = fmt.Errorf("acknowledged writes are missing: %s", got)
	}
	return t.String(), err
}

func (d *Demo) standbyPromise() string {
	if d.ssh == nil {
		return "killing a standby costs no query, and it takes reads again when it was started"
	}
	return "killing a standby costs no query, and it comes back by itself"
}

// checkStandby kills one standby in the middle of the reads.
func (d *Demo) checkStandby(ctx context.Context) (string, error) {
	victim, err := d.standby(ctx, 0)
	if err != nil {
		return "", err
	}
	var l loss
	t, err := d.runUntil(ctx, make([]pace, 8), func(ctx context.Context) (err error) {
		if err = d.awaitReads(ctx, victim); err == nil {
			l, err = d.loseStandby(ctx, victim)
		}
		return err
	})
	return fmt.Sprintf("%s; %s was back after %.1f s", t, victim.Name, l.back.Seconds()), err
}

// checkPrimary kills the primary in the middle of reads and writes.
func (d *Demo) checkPrimary(ctx context.Context) (string, error) {
	victim, err := d.primary(ctx)
	if err != nil {
		return "", err
	}
	var found string
	t, err := d.runUntil(ctx, liveLoad(), func(ctx context.Context) error {
		if err := d.awaitWrites(ctx, victim); err != nil {
			return err
		}
		killed := time.Now()
		l, err := d.losePrimary(ctx, victim)
		found = l.String()
		if err == nil && l.missing > 0 {
			err = fmt.Errorf("%d acknowledged rows are missing", l.missing)
		}
		if err != nil {
			return err
		}
		back, err := d.restored(ctx, victim, killed)
		if back > 0 && err == nil {
			found += fmt.Sprintf("; %s was back as a standby after %.1f s", victim.Name, back.Seconds())
		} else if d.ssh == nil {
			found += fmt.Sprintf("; %s stays down: there is no SSH to repair it", victim.Name)
		}
		return err
	})
	if err == nil && t.Errors > 0 {
		err = fmt.Errorf("%d queries failed", t.Errors)
	}
	return found, err
}

func (d *Demo) awaitWrites(ctx context.Context, n *pglocal.Node) error {
	before := d.load.totals()
	return await(ctx, "writes on "+n.Name, func() bool { return d.load.totals().since(before).Writes[n.Name] > 10 })
}

// runUntil has clients work as long as the act takes, unless one of them fails.
func (d *Demo) runUntil(ctx context.Context, clients []pace, act func(context.Context) error) (tally, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	done := make(chan struct{})
	go func() { // awaited below
		defer close(done)
		failed = act(ctx)
	}()
	t, err := d.run(ctx, clients, func(tally) bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
	cancel()
	<-done
	if err == nil {
		err = failed
	}
	return t, err
}

func (t tally) String() string {
	var parts []string
	for _, name := range sortedKeys(t.Reads) {
		parts = append(parts, fmt.Sprintf("%s %d reads", name, t.Reads[name]))
	}
	for _, name := range sortedKeys(t.Writes) {
		if t.Writes[name] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d writes", name, t.Writes[name]))
		}
	}
	return strings.Join(append(parts, fmt.Sprintf("%d errors", t.Errors)), ", ")
}
