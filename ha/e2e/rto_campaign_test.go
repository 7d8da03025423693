package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// preset is a configuration of the product, and the rows that are measured with it.
type preset struct {
	Name   string
	Layout Layout
	Data   int // MB that the data directory holds at least, 0: next to nothing
	Rows   []row
}

// presets are all that is measured. Failovers may follow each other at once here.
func presets() []preset {
	layout := func(more map[string]string) Layout {
		all := map[string]string{"anti_flap": `"0s"`}
		for name, value := range more {
			all[name] = value
		}
		return Layout{Operation: all, Cluster: map[string]string{"write_vip": `"10.77.0.100/24"`}}
	}
	return []preset{
		{"defaults", layout(nil), 0, []row{
			crashRestarted, powerLoss, powerLossWithLeader, hang, minority, minorityWithLeader,
			leaderKilled, quorumLost, switchover, switchoverBusy, switchoverPinned,
		}},
		{"on_crash failover", layout(map[string]string{"on_crash": `"failover"`}), 0, []row{crashReplaced}},
		{"1 GB of data", layout(nil), 1024, []row{ahead}},
	}
}

// TestRTO measures each row so often. A run that fails is counted, and its lab given up: the next runs
// have one of their own.
func TestRTO(t *testing.T) {
	n := runs(t)
	needs(t)
	for _, p := range presets() {
		t.Run(p.Name, func(t *testing.T) {
			c := newCampaign(t, p, n)
			for lab, idle := 1, 0; len(c.left) > 0 && idle < 3; lab++ {
				before := len(c.left)
				t.Run(fmt.Sprint("lab ", lab), c.work)
				if idle++; len(c.left) < before {
					idle = 0
				}
			}
			if len(c.left) > 0 {
				t.Errorf("no lab came into being: %d runs were not made", len(c.left))
			}
			if c.broken > 0 {
				t.Errorf("%d runs broke a promise", c.broken)
			}
		})
	}
}

// campaign is what is left to be done with one preset.
type campaign struct {
	preset preset
	left   []row
	broken int // runs
}

// newCampaign leaves out what the file has already, and what CST_RTO_EVENTS does not match. The rows
// take turns: a machine that is busier for an hour is so for all of them.
func newCampaign(t *testing.T, p preset, n int) *campaign {
	t.Helper()
	only, err := regexp.Compile(os.Getenv("CST_RTO_EVENTS"))
	if err != nil {
		t.Fatal(err)
	}
	c, done := &campaign{preset: p}, measured(t, contender)
	for i := range n {
		for _, r := range p.Rows {
			if only.MatchString(r.Name) && done[p.Name+", "+r.Name] <= i {
				c.left = append(c.left, r)
			}
		}
	}
	return c
}

// measured counts the runs in the file that CST_RTO_OUT names, failed ones included, by "preset, event".
func measured(t *testing.T, contender string) map[string]int {
	t.Helper()
	done := map[string]int{}
	file, err := os.Open(filepath.Clean(os.Getenv("CST_RTO_OUT")))
	if errors.Is(err, fs.ErrNotExist) || os.Getenv("CST_RTO_OUT") == "" {
		return done
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var f figure
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			t.Fatalf("%s: %v", file.Name(), err)
		}
		if f.Contender == contender {
			done[f.Preset+", "+f.Event]++
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return done
}

const contender = "cstproxy"

// labRuns is how many runs one lab is good for: its logs, which are read again and again, grow.
const labRuns = 50

// work makes a lab and measures with it what is left, until a run fails.
func (c *campaign) work(t *testing.T) {
	l := New(t, Options{Hosts: []string{"m1", "m2", "m3", "c1", "c2"}})
	hosts := []*Host{l.Host("m1"), l.Host("m2"), l.Host("m3")}
	layout := c.preset.Layout
	layout.Members, layout.Nodes = hosts, l.Postgres(nil, hosts...)
	if c.preset.Data > 0 {
		fill(t, layout.Nodes, c.preset.Data)
	}
	f := newFleet(l, layout)
	about := f.about(t, c.preset.Name)
	for range min(len(c.left), labRuns) {
		r := c.left[0]
		c.left = c.left[1:]
		measured := t.Run(r.Name, func(t *testing.T) {
			if broken := f.measure(t, about, r); len(broken) > 0 {
				c.broken++
			}
		})
		if !measured {
			return
		}
	}
}

// about is what all figures of a fleet have alike.
func (f *Fleet) about(t *testing.T, preset string) figure {
	t.Helper()
	version, err := output(exec.CommandContext(t.Context(), filepath.Join(f.lab.Share(), "cstproxy"), "version"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := output(exec.CommandContext(t.Context(), filepath.Join(f.lab.bin, "postgres"), "-V"))
	if err != nil {
		t.Fatal(err)
	}
	settings, err := f.members[0].Exec(t.Context(), "/run/lab/cstproxy", "config", "show", "-f", "/home/cstproxy/cstproxy.toml")
	if err != nil {
		t.Fatal(err)
	}
	return figure{Contender: contender, Version: firstLine(version), Machine: machine(), Postgres: serverVersion.FindString(server),
		Preset: preset, Timing: timing(settings)}
}

var serverVersion = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// timing are the settings that say how long things take, as `config show` has them.
func timing(settings string) string {
	var found []string
	for line := range strings.SplitSeq(settings, "\n") {
		for _, name := range []string{"fleet.lease", "fleet.heartbeat", "fleet.election", "fleet.leader_lease", "gray_after", "restart_budget", "on_crash"} {
			fields := strings.Fields(strings.ReplaceAll(line, "=", " "))
			if len(fields) > 1 && (fields[0] == name || strings.HasSuffix(fields[0], "."+name)) {
				found = append(found, name+" "+strings.Trim(fields[1], `"`))
			}
		}
	}
	return strings.Join(found, ", ")
}

// lend has the lab's faults fail this test instead of the one that made the lab.
func (l *Lab) lend(t *testing.T) {
	owner := l.t
	l.t = t
	t.Cleanup(func() { l.t = owner })
}

// fill makes the servers' data so large: rows of 1 kB. It waits for the standbys again and again, which
// have no slots yet.
func fill(t *testing.T, nodes []*Node, megabytes int) {
	t.Helper()
	must := func(sql string) {
		t.Helper()
		if _, err := nodes[0].Psql(t.Context(), sql); err != nil {
			t.Fatalf("fill %s: %v", nodes[0].Name, err)
		}
	}
	must("CREATE TABLE bulk (id bigint, text text)")
	for done := 0; done < megabytes; done += 64 {
		must(fmt.Sprintf("INSERT INTO bulk SELECT i, repeat(md5(i::text), 30) FROM generate_series(%d, %d) i", done*1000, (done+64)*1000))
		awaitReplayed(t, nodes)
	}
	must("CHECKPOINT")
	awaitReplayed(t, nodes)
}

// jitter is waited before an event, so that it comes at any moment between two probes.
func jitter() time.Duration { return time.Second + rand.N(time.Second) }
