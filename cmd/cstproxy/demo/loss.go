package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// patience is how long cstproxy may take for what it does by itself.
const patience = 2 * time.Minute

// enough answers of a server prove that it is back: more than could have been under way when it died.
const enough = 100

// primary is the server that takes the writes, as cstproxy has agreed on.
func (d *Demo) primary(ctx context.Context) (*pglocal.Node, error) {
	var found *pglocal.Node
	err := await(ctx, "a primary", func() bool {
		clusters, err := d.admin.Clusters(ctx, "")
		if err != nil || len(clusters) == 0 {
			return false
		}
		for _, n := range d.cluster.Nodes() {
			if n.ID == clusters[0].Primary {
				found = n
			}
		}
		return found != nil
	})
	return found, err
}

// standby is the one with that number, counted from 0 and round again.
func (d *Demo) standby(ctx context.Context, number int) (*pglocal.Node, error) {
	primary, err := d.primary(ctx)
	if err != nil {
		return nil, err
	}
	var list []*pglocal.Node
	for _, n := range d.cluster.Nodes() {
		if n != primary {
			list = append(list, n)
		}
	}
	return list[number%len(list)], nil
}

// loss is what became of a server that was killed.
type loss struct {
	victim, successor string
	waited            time.Duration // the longest that a write took
	acked, missing    int64         // writes that were acknowledged until the successor had taken over
	seen              tally         // what the clients saw
	back              time.Duration // after which the victim answered reads; 0: it did not
}

// loseStandby kills a standby under the load and returns when it answers reads again.
func (d *Demo) loseStandby(ctx context.Context, victim *pglocal.Node) (loss, error) {
	l := loss{victim: victim.Name}
	before, began := d.load.totals(), time.Now()
	if err := victim.Crash(ctx); err != nil {
		return l, err
	}
	if d.ssh == nil {
		if err := d.proxy.AwaitBackends(ctx, len(d.cluster.Nodes())-2); err != nil {
			return l, err
		}
		if err := victim.Start(ctx); err != nil {
			return l, err
		}
	}
	err := d.awaitReads(ctx, victim)
	l.back, l.seen = time.Since(began), d.load.totals().since(before)
	return l, err
}

func (d *Demo) awaitReads(ctx context.Context, n *pglocal.Node) error {
	before := d.load.totals()
	return await(ctx, "reads on "+n.Name, func() bool { return d.load.totals().since(before).Reads[n.Name] > enough })
}

// losePrimary kills the primary under the load, and returns when a standby has taken over and every
// writer has written there. Restored waits for the rest.
func (d *Demo) losePrimary(ctx context.Context, victim *pglocal.Node) (loss, error) {
	l := loss{victim: victim.Name}
	if err := d.awaitHeirs(ctx); err != nil {
		return l, err
	}
	before := d.load.totals()
	d.load.waited()
	if err := victim.Crash(ctx); err != nil {
		return l, err
	}
	last := d.load.receipts()
	err := await(ctx, "writes on another server", func() bool {
		for writer, number := range d.load.receipts() {
			if number < last[writer]+5 {
				return false
			}
		}
		return true
	})
	l.seen, l.waited = d.load.totals().since(before), d.load.waited()
	if err != nil {
		return l, err
	}
	successor, err := d.primary(ctx)
	if err != nil {
		return l, err
	}
	l.successor = successor.Name
	if successor == victim || l.seen.Writes[successor.Name] == 0 {
		return l, errors.New("no other server took over")
	}
	return l, d.count(ctx, &l, successor)
}

// awaitHeirs waits until every standby may take over: one that has just come back may not yet.
func (d *Demo) awaitHeirs(ctx context.Context) error {
	return await(ctx, "standbys that may take over", func() bool {
		meta, err := d.admin.Meta(ctx, stand.ClusterName)
		return err == nil && len(meta.Eligible) == len(d.cluster.Nodes())-1
	})
}

// count looks for every acknowledged write in the table.
func (d *Demo) count(ctx context.Context, l *loss, primary *pglocal.Node) error {
	for writer, number := range d.load.receipts() {
		var found int64
		text, err := primary.PsqlIn(ctx, database, fmt.Sprintf("SELECT count(*) FROM transfer WHERE account = %d AND number <= %d", writer, number))
		if err == nil {
			_, err = fmt.Sscan(text, &found)
		}
		if err != nil {
			return err
		}
		l.acked, l.missing = l.acked+number, l.missing+number-found
	}
	return nil
}

// restored waits until a former primary that was killed then answers reads as a standby, which takes a
// way to its host.
func (d *Demo) restored(ctx context.Context, victim *pglocal.Node, killed time.Time) (time.Duration, error) {
	if d.ssh == nil {
		return 0, nil
	}
	err := d.awaitReads(ctx, victim)
	return time.Since(killed), err
}

// await polls until what is so, for at most patience.
func await(ctx context.Context, what string, so func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !so() {
		if !rest(ctx, 20*time.Millisecond) {
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
	}
	return nil
}
