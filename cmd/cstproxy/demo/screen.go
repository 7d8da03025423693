package demo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cstproxy/cstproxy/admin"
)

// events are the last things worth telling.
type events struct {
	mu    sync.Mutex
	lines []string
}

func (e *events) add(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, time.Now().Format("15:04:05 ")+fmt.Sprintf(format, args...))
}

// from returns the lines from number n on.
func (e *events) from(n int) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.lines[min(n, len(e.lines)):]...)
}

// The live view's load: enough to see something, light enough for a laptop.
func liveLoad() []pace {
	var clients []pace
	for range 8 {
		clients = append(clients, pace{every: 20 * time.Millisecond})
	}
	for id := range 2 {
		clients = append(clients, pace{every: 100 * time.Millisecond, write: true, id: id + 1})
	}
	return clients
}

// show draws the live view until ctx ends.
func (d *Demo) show(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { d.load.run(ctx, liveLoad()) })
	if !d.cfg.Calm {
		wg.Go(func() { d.story(ctx) })
	}
	if !d.cfg.Terminal {
		d.say("ready; Ctrl-C ends it; in another terminal:\n%s", d.pasteable())
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	began, before, told := time.Now(), tally{}, 0
	for seconds := 1; ; seconds++ {
		select {
		case <-ctx.Done():
			d.say("\nending; everything is removed …")
			return nil
		case <-d.proxy.Exited():
			return d.proxy.Stop(ctx)
		case <-tick.C:
		}
		now, spent, last := d.load.now()
		f := frame{
			up: time.Since(began).Round(time.Second), total: now, rates: now.since(before),
			p50: quantile(spent, 0.50), p99: quantile(spent, 0.99), last: last, waits: d.load.waiting(),
		}
		f.epoch, f.nodes = d.nodes(ctx)
		before = now
		if d.cfg.Terminal {
			fmt.Fprint(d.cfg.Out, "\x1b[H\x1b[2J", d.page(f))
			continue
		}
		for _, line := range d.events.from(told) {
			d.say("%s", line)
			told++
		}
		if seconds%5 == 0 {
			d.say("%s", f.line())
		}
	}
}

// frame is one moment of the view.
type frame struct {
	up           time.Duration
	total, rates tally
	p50, p99     float64 // ms
	last         error
	waits        time.Duration // how long a write waits that is not answered yet
	epoch        uint64        // 0: none is known
	nodes        []row
}

// row is one node.
type row struct {
	name   string
	port   int
	role   string
	state  string
	lag    string
	weight int
}

// nodes are the cluster's epoch and nodes in the proxy's words.
func (d *Demo) nodes(ctx context.Context) (epoch uint64, rows []row) {
	ctx, cancel := context.WithTimeout(ctx, 900*time.Millisecond)
	defer cancel()
	clusters, err := d.admin.Clusters(ctx, "")
	var known []admin.Node
	if err == nil && len(clusters) > 0 {
		known, epoch = clusters[0].Nodes, clusters[0].Epoch
	}
	for _, n := range d.cluster.Nodes() {
		r := row{name: n.Name, port: n.Port, role: "?", state: "not asked", lag: "-"}
		for _, k := range known {
			if k.Port != n.Port {
				continue
			}
			r.role, r.state, r.weight = k.Role, k.Health, k.Weight
			if k.LagBytes != nil && k.Role == "standby" {
				r.lag = fmt.Sprintf("%d B", *k.LagBytes)
			}
		}
		rows = append(rows, r)
	}
	return epoch, rows
}

func (d *Demo) page(f frame) string {
	var b strings.Builder
	bold := func(s string) string { return "\x1b[1m" + s + "\x1b[0m" }
	fmt.Fprintf(&b, "%s   up %s   epoch %d   Ctrl-C ends it and removes everything\n\n", bold("cstproxy demo"), f.up, f.epoch)
	fmt.Fprintf(&b, "%s\n", bold(fmt.Sprintf("  %-7s %5s  %-8s %-13s %8s %9s  %-26s %s", "node", "port", "role", "state", "reads/s", "writes/s", "share of the reads", "lag")))
	for _, r := range f.nodes {
		state := fmt.Sprintf("%-13s", r.state)
		switch {
		case r.state == "healthy":
			state = "\x1b[32m" + state + "\x1b[0m"
		default:
			state = "\x1b[31m" + state + "\x1b[0m"
		}
		fmt.Fprintf(&b, "  %-7s %5d  %-8s %s %8d %9d  %-26s %s\n", r.name, r.port, r.role, state,
			f.rates.Reads[r.name], f.rates.Writes[r.name], bar(f.rates.Reads[r.name], sum(f.rates.Reads)), r.lag)
	}
	fmt.Fprintf(&b, "\n  through %s: %d reads/s, %d writes/s, reads p50 %.1f ms, p99 %.1f ms\n",
		d.proxy.Listen(), sum(f.rates.Reads), sum(f.rates.Writes), f.p50, f.p99)
	fmt.Fprintf(&b, "  since the start: %d reads, %d writes, %d errors, %d connections lost, %d transactions repeated\n",
		sum(f.total.Reads), sum(f.total.Writes), f.total.Errors, f.total.Lost, f.total.Repeats)
	if f.waits > 200*time.Millisecond {
		fmt.Fprintf(&b, "  writes wait: %.1f s\n", f.waits.Seconds())
	}
	if f.last != nil {
		fmt.Fprintf(&b, "  last error: %v\n", f.last)
	}
	fmt.Fprintf(&b, "\n%s\n%s\n\n", bold("  in another terminal:"), d.pasteable())
	lines := d.events.from(0)
	for _, line := range lines[max(0, len(lines)-8):] {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	return b.String()
}

// line is the frame where nothing can be redrawn.
func (f frame) line() string {
	parts := make([]string, 0, len(f.nodes)+1)
	for _, r := range f.nodes {
		parts = append(parts, fmt.Sprintf("%s %s %s: %d reads/s %d writes/s", r.name, r.role, r.state, f.rates.Reads[r.name], f.rates.Writes[r.name]))
	}
	return fmt.Sprintf("%6s  %s · p99 %.1f ms · %d errors", f.up, strings.Join(parts, " · "), f.p99, f.total.Errors)
}

// bar draws a share of 20 cells and its per cent.
func bar(part, whole int) string {
	if whole == 0 {
		return ""
	}
	return fmt.Sprintf("%-20s %3d %%", strings.Repeat("█", (part*20+whole/2)/whole), (part*100+whole/2)/whole)
}
