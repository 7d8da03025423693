// Command bench compares proxies for PostgreSQL on this machine, as black boxes: it starts a
// primary with one standby, puts each contender in front of the standby, and runs pgbench through
// one after the other, round by round, so that the machine's moods meet all of them. What counts is
// the CPU time of the proxy's own processes per query; transactions per second depend on three
// parties that share the same cores. It imports nothing of ours.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// plan is what to measure.
type plan struct {
	cstproxy string
	rounds   int
	seconds  int
	clients  int
	jobs     int
	pool     int
	scale    int
	protocol string
	only     string
}

func main() {
	runtime.LockOSThread() // the contenders' death signal is tied to the thread that forks them
	var p plan
	flag.StringVar(&p.cstproxy, "cstproxy", "bin/cstproxy", "the binary to measure")
	flag.IntVar(&p.rounds, "rounds", 5, "interleaved rounds; fewer than 5 prove nothing")
	flag.IntVar(&p.seconds, "seconds", 8, "length of each run; shorter ones measure the warm-up of new servers")
	flag.IntVar(&p.clients, "clients", 32, "pgbench -c")
	flag.IntVar(&p.jobs, "jobs", 2, "pgbench -j")
	flag.IntVar(&p.pool, "pool", 20, "server connections of each pooling proxy")
	flag.IntVar(&p.scale, "scale", 10, "pgbench -s")
	flag.StringVar(&p.protocol, "protocol", "simple", "pgbench -M: simple, extended or prepared")
	flag.StringVar(&p.only, "only", "", "comma-separated contenders (direct, cstproxy, pgbouncer, floor, pgpool); empty means all that are installed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := p.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (p plan) run(ctx context.Context) (err error) {
	m, err := newMachine()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.clean()) }()
	fmt.Println("starting a primary and a standby …")
	if err := m.startServers(ctx, p.scale); err != nil {
		return err
	}
	contenders, err := p.contenders(ctx, m)
	if err != nil {
		return err
	}
	for _, c := range contenders { // new servers are slow at first
		if _, err := m.measure(ctx, c, p.with(2)); err != nil {
			return fmt.Errorf("warm up %s: %w", c.name, err)
		}
	}
	fmt.Printf("%d rounds of %d s, pgbench -S -M %s -c %d -j %d, pools of %d\n", p.rounds, p.seconds, p.protocol, p.clients, p.jobs, p.pool)
	fmt.Printf("%-6s %-10s %12s %10s %10s %12s %8s\n", "round", "", "CPU µs/query", "(user)", "TPS", "latency ms", "load")
	all := map[string][]result{}
	for round := range p.rounds {
		// Each round begins with another contender: whoever comes first after a pause is cooler.
		for i := range contenders {
			c := contenders[(round+i)%len(contenders)]
			r, err := m.measure(ctx, c, p)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			fmt.Printf("%-6d %-10s %12.1f %10.1f %10.0f %12.3f %8s\n", round+1, c.name, r.cpu, r.user, r.tps, r.latency, load())
			all[c.name] = append(all[c.name], r)
		}
	}
	report(contenders, all)
	return nil
}

// with is the plan with runs of another length.
func (p plan) with(seconds int) plan {
	p.seconds = seconds
	return p
}

func (p plan) wants(name string) bool {
	return p.only == "" || slices.Contains(strings.Split(p.only, ","), name)
}

// report prints the medians, and the ratio of each contender's CPU to PgBouncer's within a round.
func report(contenders []contender, all map[string][]result) {
	fmt.Printf("\nmedians%*s %12s %10s %10s   %s\n", 10, "", "CPU µs/query", "(user)", "TPS", "CPU as a multiple of PgBouncer's in the same round")
	for _, c := range contenders {
		rs := all[c.name]
		cpu := median(rs, func(r result) float64 { return r.cpu })
		user := median(rs, func(r result) float64 { return r.user })
		tps := median(rs, func(r result) float64 { return r.tps })
		fmt.Printf("%-17s %12.1f %10.1f %10.0f   %s\n", c.name, cpu, user, tps, ratios(rs, all["pgbouncer"]))
	}
	fmt.Println("One binary varies by some 15 %: nearer than that is a tie.")
}

func ratios(rs, base []result) string {
	if len(base) != len(rs) || len(rs) == 0 || rs[0].cpu == 0 {
		return "-"
	}
	list := make([]float64, len(rs))
	for i := range rs {
		list[i] = rs[i].cpu / base[i].cpu
	}
	slices.Sort(list)
	return fmt.Sprintf("%.2f (%.2f … %.2f)", list[len(list)/2], list[0], list[len(list)-1])
}

func median(rs []result, of func(result) float64) float64 {
	list := make([]float64, 0, len(rs))
	for _, r := range rs {
		list = append(list, of(r))
	}
	slices.Sort(list)
	return list[len(list)/2]
}

// load is the machine's load average of the last minute.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

// settle gives the machine a moment between two runs.
func settle(ctx context.Context) {
	t := time.NewTimer(300 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
