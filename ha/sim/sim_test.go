package sim

import (
	"bytes"
	"flag"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", 0, "run this seed and print its trace")

// seeds is how many seeds TestSeeds runs: CST_SIM_SEEDS, or what fits into a minute on two cores.
func seeds(t *testing.T) uint64 {
	t.Helper()
	if s := os.Getenv("CST_SIM_SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("CST_SIM_SEEDS: %v", err)
		}
		return n
	}
	if testing.Short() {
		return 300
	}
	return 3000
}

// search runs seeds from first until one fails or n have run, on all cores. The seeds that it
// returns a report of are the lowest that fail, whatever the number of cores.
func search(o Options, first, n uint64) (failed *Report, total Report) {
	var mu sync.Mutex
	var next, lowest atomic.Uint64
	lowest.Store(first + n)
	next.Store(first)
	var done sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		done.Go(func() {
			for {
				s := next.Add(1) - 1
				if s >= lowest.Load() {
					return
				}
				run := o
				run.Seed = s
				r := Run(run)
				mu.Lock()
				total.add(r)
				if r.Failure != nil && s < lowest.Load() {
					lowest.Store(s)
					failed = &r
				}
				mu.Unlock()
			}
		})
	}
	done.Wait()
	return failed, total
}

func (r *Report) add(o Report) {
	r.Events += o.Events
	r.Writes += o.Writes
	r.Acked += o.Acked
	r.Epochs += o.Epochs
	r.Undone += o.Undone
	r.Waiting += o.Waiting
	r.Helped += o.Helped
	r.Proved += o.Proved
	r.Lasted += o.Lasted
}

// explain shrinks a failing run and shows it.
func explain(t *testing.T, r Report, o Options) {
	t.Helper()
	o.Seed = r.Seed
	short := Shrink(r, o)
	t.Errorf("%s\nshrunk to\n%s\nrun it: go test ./ha/sim -run TestSeed$ -seed %d -v", &r, &short, r.Seed)
}

func TestSeeds(t *testing.T) {
	n := seeds(t)
	failed, total := search(Options{}, 1, n)
	if failed != nil {
		explain(t, *failed, Options{})
	}
	t.Logf("%d seeds: %s of virtual time, %d events, %d writes of which %d acknowledged, %d reads on standbys that had to have them, %d epochs, %d operations undone, %d left to an operator, who had to act %d times in the end",
		n, total.Lasted.Round(time.Second), total.Events, total.Writes, total.Acked, total.Proved, total.Epochs, total.Undone, total.Waiting, total.Helped)
	if failed == nil && (total.Acked < total.Writes/2 || total.Proved < total.Acked/10 || total.Epochs < int(n)) {
		t.Errorf("so little happens that the runs prove nothing")
	}
}

func TestSeed(t *testing.T) {
	if *seed == 0 {
		t.Skip("no -seed")
	}
	r := Run(Options{Seed: *seed, Trace: os.Stdout})
	if r.Failure != nil {
		explain(t, r, Options{})
	}
}

func TestASeedIsTheSameRunEachTime(t *testing.T) {
	for s := uint64(1); s <= 20; s++ {
		var a, b bytes.Buffer
		Run(Options{Seed: s, Trace: &a})
		Run(Options{Seed: s, Trace: &b})
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Fatalf("seed %d: %s", s, firstDifference(a.String(), b.String()))
		}
	}
}

func firstDifference(a, b string) string {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	return "one run has\n…" + a[max(0, i-200):min(len(a), i+200)] + "\nthe other\n…" + b[max(0, i-200):min(len(b), i+200)]
}

// TestEveryGuardIsMissed leaves out one guard at a time: if nothing is found, the simulator is blind.
func TestEveryGuardIsMissed(t *testing.T) {
	for g := LeaseWait; g <= Tickets; g++ {
		t.Run(g.String(), func(t *testing.T) {
			failed, _ := search(Options{Without: g}, 1, 2000)
			if failed == nil {
				t.Fatalf("2,000 seeds without the %s break nothing", g)
			}
			t.Logf("without the %s: %s", g, failed)
		})
	}
}

// TestARestartedStandbyHasProvedNothing leaves out the guard that the drawn faults need too seldom: a
// standby crashes, and lets clients in before it has replayed again what it had.
func TestARestartedStandbyHasProvedNothing(t *testing.T) {
	faults := []Fault{
		{Kind: HangDisk, At: 6 * time.Second, For: 4 * time.Second, Who: []string{"primary"}},
		{Kind: KillServer, At: 6500 * ms, For: time.Second, Who: []string{"standbys"}},
		{Kind: KillServer, At: 8 * time.Second, For: time.Second, Who: []string{"standbys"}},
	}
	shape := func(p *plan) { plain(p); p.selfStart = true }
	failed, _ := search(Options{Without: Forgetting, Faults: faults, shape: shape}, 1, 100)
	if failed == nil {
		t.Fatal("100 seeds without the forgetting break nothing")
	}
	t.Logf("without the forgetting: %s", failed)
	if failed, _ = search(Options{Faults: faults, shape: shape}, 1, 100); failed != nil {
		t.Fatalf("%s", failed)
	}
}
