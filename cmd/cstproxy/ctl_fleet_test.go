package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/cstproxy/cstproxy/admin"
)

// scripted is a fleet that answers as a test says, and remembers what it was asked.
type scripted struct {
	mu     sync.Mutex
	orders []string
	fail   error
	task   admin.Task
	logs   []func() (admin.TaskLog, error) // one answer each; the last one again and again
	froze  *admin.Froze
}

// TestMain prints times alike on every machine.
func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

func at(seconds float64) time.Time {
	return time.Date(2026, 11, 21, 9, 30, 0, 0, time.Local).Add(time.Duration(seconds * float64(time.Second)))
}

func (s *scripted) asked(format string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = append(s.orders, fmt.Sprintf(format, args...))
	return s.fail
}

func (s *scripted) Order(_ context.Context, o admin.Order) (admin.Task, error) {
	if o.By == "" {
		return admin.Task{}, fmt.Errorf("whose order is it? %w", admin.ErrRefused)
	}
	t := s.task
	t.Cluster, t.Kind, t.By = o.Cluster, o.Verb, "dba@ops1"
	if t.Node == 0 {
		t.Node = o.Node
	}
	if o.Verb == "froze" || o.Verb == "unfroze" || o.Verb == "cancel" {
		t = admin.Task{Cluster: o.Cluster}
	}
	at := ""
	if !o.At.IsZero() {
		at, t.At, t.Step = " at="+o.At.UTC().Format(time.RFC3339), &o.At, "planned"
	}
	return t, s.asked("%s %d %q mode=%q loss=%v dry=%v%s", o.Verb, o.Node, o.Why, o.Mode, o.AcceptDataLoss, o.DryRun, at)
}

func (s *scripted) Voter(_ context.Context, c admin.VoterChange) error {
	return s.asked("voter %s %s %s %s", c.Verb, c.Name, c.Address, c.Role)
}

func (s *scripted) Adopt(_ context.Context, a admin.Adoption) (admin.Adopted, error) {
	return admin.Adopted{Fleet: "F2", Floors: map[string]uint64{a.Cluster: max(41, a.Epoch-1)}, Former: []string{"F1"}, Missing: []string{"node 4: no route to host"}},
		s.asked("adopt %s %d", a.Cluster, a.Epoch)
}

func (s *scripted) Tasks(string) ([]admin.Task, error) {
	return []admin.Task{
		{ID: 6, Cluster: "cluster01", Kind: "failover", From: 2, To: 3, Step: "done", Candidate: 2, Former: 4, Why: "2 of 3 see node 4 down", By: "m1", Outcome: "done", Note: "node 2 is the primary"},
		{ID: 7, Cluster: "cluster01", Kind: "repair", From: 3, To: 3, Step: "after", Node: 4, Why: "repair on request", By: "dba@ops1"},
	}, s.fail
}

func (s *scripted) TaskLog(_ context.Context, p admin.TaskPlace) (admin.TaskLog, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = append(s.orders, fmt.Sprintf("log %d %s %d", p.ID, p.Log, p.From))
	answer := s.logs[0]
	if len(s.logs) > 1 {
		s.logs = s.logs[1:]
	}
	return answer()
}

func (s *scripted) Status() admin.FleetStatus {
	lease := 1.2
	return admin.FleetStatus{Member: "m1", Fleet: "F1", Leader: "m2", Term: 5, Clusters: []admin.MemberShare{{Cluster: "cluster01", Epoch: 3, Primary: 2, LeaseSeconds: &lease}}}
}

func (s *scripted) Members(context.Context) ([]admin.Member, error) {
	heard := 0.21
	list := []admin.Member{{Name: "m1", Address: "192.168.0.41:7946", Role: "voter", HeardSeconds: &heard}, {Name: "m2", Address: "192.168.0.42:7946", Role: "voter", Leads: true, HeardSeconds: &heard},
		{Name: "w", Address: "192.168.0.43:7946", Role: "voter", Witness: true}}
	return list, s.fail
}

func (s *scripted) Evidence(context.Context, string) (admin.Evidence, error) {
	said := 0.4
	return admin.Evidence{Cluster: "cluster01", Leader: "m2", Since: at(0), Alarm: "node 4 is lost",
		Decisions: []admin.Decision{{At: at(1), Why: "2 of 3 see node 4 down"}, {At: at(2), Why: "node 2 takes over", Actions: []string{"recruit node 1", "recruit node 2"}}},
		Sights:    []admin.Sight{{Member: "m1", Node: 2, Class: "answers", SinceSeconds: 90, AgoSeconds: 0.2, Host: "up"}, {Member: "m1", Node: 4, Class: "silent", SinceSeconds: 3.14, AgoSeconds: 0.2, Why: "i/o timeout"}},
		Facts:     []admin.Fact{{Node: 2, Role: "primary", AgoSeconds: &said, Timeline: 9, LSN: "0/30E73D0"}, {Node: 4, Role: "unknown", Mark: "quarantine: it was the primary"}},
		Addresses: []admin.Holding{{Kind: "read", Address: "192.168.56.45", Hosts: []string{"192.168.56.41"}, AgoSeconds: 75.4}, {Kind: "write", Address: "192.168.56.40", Hosts: []string{"192.168.56.42"}, AgoSeconds: 0.4}}}, s.fail
}

func (s *scripted) Meta(cluster string) (admin.Meta, error) {
	began := time.Date(2026, 11, 21, 9, 30, 0, 157e6, time.UTC)
	return admin.Meta{Cluster: cluster, Fleet: "F1", Epoch: 3, LastEpoch: 3, Primary: 2, Address: "192.168.56.42:5432", SystemID: "7212345678901234567", Timeline: 9, SwitchLSN: "0/30E73D0",
		Eligible: []int{1, 3}, Froze: s.froze, Marks: map[string]string{"4": "quarantine: it was the primary"}, WriteVIP: "192.168.56.40", ReadVIP: "192.168.56.45", Configuration: map[string]any{"on_crash": "restart"},
		Former: []admin.Fork{{Timeline: 8, End: 51278800, LSN: "0/30E73D0", Why: "2 of 3 see node 4 down", Primary: 2, At: &began}}}, nil
}

func (s *scripted) Init(_ context.Context, _ string, line func(string)) error {
	line("node 1: wrapper installed")
	line("node 2: ~/.bashrc is slow: 0.9 s")
	return s.fail
}

func (s *scripted) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.orders, "\n")
}

func fleetPort(t *testing.T, s *scripted) (file, address string) {
	t.Helper()
	f := manual{}
	ring := admin.NewRing(10, zapcore.InfoLevel, zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "msg", EncodeDuration: zapcore.StringDurationEncoder}))
	zap.New(ring).Named("fleet").Info("leads", zap.String("member", "m2"))
	return servePort(t, admin.Parts{Observer: f, Backends: f, Nodes: f, Replication: f, Fleet: s, Log: ring, Version: "test"})
}

func lines(task admin.Task, list ...admin.TaskLine) func() (admin.TaskLog, error) {
	return func() (admin.TaskLog, error) {
		next := 0
		if len(list) > 0 {
			next = list[len(list)-1].Number
		}
		return admin.TaskLog{Log: "L1", Next: next, Lines: list, Task: task}, nil
	}
}

func failing(err error) func() (admin.TaskLog, error) {
	return func() (admin.TaskLog, error) { return admin.TaskLog{}, err }
}

// switching is the log of a switch during which the leader is lost for a moment.
func switching() []func() (admin.TaskLog, error) {
	goes, ended := admin.Task{ID: 8, Kind: "switch", Step: "fence"}, admin.Task{ID: 8, Cluster: "cluster01", Kind: "switch", Node: 3, From: 3, To: 4, Step: "done", Candidate: 3, Outcome: "done", By: "dba@ops1"}
	return []func() (admin.TaskLog, error){
		lines(goes, admin.TaskLine{Number: 1, At: at(0), Kind: "step", Step: "intent", Text: "switch to node 3, by dba@ops1"},
			admin.TaskLine{Number: 2, At: at(0.01), Kind: "step", Step: "freeze", Text: "members route no new writes"},
			admin.TaskLine{Number: 3, At: at(0.05), Kind: "step", Step: "fence", Text: "node 2 is shut down in order"},
			admin.TaskLine{Number: 4, At: at(0.06), Kind: "begin", Step: "fence", Node: 2, Text: "stop node 2 (fast)"},
			admin.TaskLine{Number: 5, At: at(0.31), Kind: "end", Step: "fence", Node: 2, Seconds: 0.25, Text: "stop node 2 (fast): done"}),
		failing(fmt.Errorf("no member leads the fleet: %w", admin.ErrNoLeader)),
		lines(goes, admin.TaskLine{Number: 1, At: at(3), Kind: "leader", Step: "promote", Text: "m3 leads and goes on: switch 8 is at step promote"},
			admin.TaskLine{Number: 2, At: at(4), Kind: "outcome", Step: "done", Text: "done: node 3 is the primary of epoch 4"}),
		lines(ended),
	}
}

func TestCtlPrintsTheFleet(t *testing.T) {
	for name, args := range map[string]string{
		"fleet_show":         "show",
		"fleet_members":      "members",
		"fleet_evidence":     "evidence",
		"fleet_get_meta":     "get_meta",
		"fleet_show_task":    "show_task",
		"fleet_show_task_7":  "show_task 7 -o json",
		"fleet_task_log":     "task_log 8",
		"fleet_task_log.tsv": "task_log 8 -o tsv",
		"fleet_task_log_F":   "task_log 8 -F",
		"fleet_switch":       "switch -i 3 --yes",
		"fleet_switch.yaml":  "switch 3 --yes -o yaml",
		"fleet_switch_later": "switch -i 3 --yes --no-wait -o tsv",
		"fleet_repair_dry":   "repair -i 4 --dry-run --mode rewind",
		"fleet_clone_dry":    "clone -i 4 --dry-run",
		"fleet_froze":        "froze --why maintenance",
		"fleet_unfroze":      "resume -o json",
		"fleet_voter":        "voter add m4 192.168.0.44:7946 --yes",
		"fleet_adopt":        "adopt --epoch 50 --yes",
		"fleet_init":         "init",
		"fleet_log":          "log",
	} {
		t.Run(name, func(t *testing.T) {
			s := &scripted{task: admin.Task{ID: 8, Step: "intent"}, logs: switching()}
			if name == "fleet_show" {
				s.froze = &admin.Froze{By: "dba@ops1", Why: "maintenance"}
			}
			if strings.HasPrefix(args, "task_log") {
				s.logs = append(s.logs[:1], s.logs[3:]...)
			}
			file, address := fleetPort(t, s)
			code, out, errOut := cstproxy(append([]string{"ctl", "-f", file}, strings.Fields(args)...)...)
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, errOut)
			}
			golden(t, name, strings.ReplaceAll(out, address, "127.0.0.1:8082"))
		})
	}
}

func TestCtlGivesTheOrdersOfItsFlags(t *testing.T) {
	for args, want := range map[string]string{
		"switch -i 3 --yes --no-wait --why drill":              `switch 3 "drill" mode="" loss=false dry=true` + "\n" + `switch 3 "drill" mode="" loss=false dry=false`,
		"failover -i 1 --accept-data-loss --yes --no-wait":     `failover 1 "" mode="" loss=true dry=true` + "\n" + `failover 1 "" mode="" loss=true dry=false`,
		"reinit 4 --mode rebuild --yes --no-wait":              `repair 4 "" mode="rebuild" loss=false dry=true` + "\n" + `repair 4 "" mode="rebuild" loss=false dry=false`,
		"node restart -i 4 --no-wait":                          `restart 4 "" mode="" loss=false dry=false`,
		"pause --why x":                                        `froze 0 "x" mode="" loss=false dry=false`,
		"voter remove m3 --yes":                                "voter remove m3  ",
		"voter readmit m3 h:1 --yes":                           "voter readmit m3 h:1 ",
		"voter add m4 h:1 --role follower --yes":               "voter add m4 h:1 follower",
		"switch -i 3 --yes --at 2099-01-02T03:04:05Z":          `switch 3 "" mode="" loss=false dry=true` + "\n" + `switch 3 "" mode="" loss=false dry=false at=2099-01-02T03:04:05Z`,
		"switch --cancel":                                      `cancel 0 "" mode="" loss=false dry=false`,
		"switch --cancel -i 3":                                 "",
		"switch -i 3 --yes --at +1h --no-wait --timeout 1ms-x": "",
	} {
		s := &scripted{task: admin.Task{ID: 8}}
		file, _ := fleetPort(t, s)
		code, _, errOut := cstproxy(append([]string{"ctl", "-f", file}, strings.Fields(args)...)...)
		if s.said() != want || (code == 0) != (want != "") {
			t.Errorf("%s: exit code %d, %s\nasked\n%s\nwant\n%s", args, code, errOut, s.said(), want)
		}
	}
}

func TestCtlSaysHowATaskEnded(t *testing.T) {
	t.Setenv("CSTPROXY_CONFIG", "")
	t.Chdir(t.TempDir())
	ended := func(outcome string) *scripted {
		end := lines(admin.Task{ID: 8, Kind: "switch", Step: "done", Outcome: outcome, Note: "the candidate lags"})
		return &scripted{task: admin.Task{ID: 8}, logs: []func() (admin.TaskLog, error){end}}
	}
	for _, c := range []struct {
		name   string
		script *scripted
		args   string
		code   int
		says   string
	}{
		{"done", ended("done"), "switch -i 3 --yes", 0, ""},
		{"undone", ended("undone"), "switch -i 3 --yes", 1, "switch 8 ended undone: the candidate lags"},
		{"failed, followed", ended("failed"), "task_log 8 -F", 1, "ended failed"},
		{"refused", &scripted{fail: fmt.Errorf("node 3 cannot take over: %w", admin.ErrRefused)}, "switch -i 3 --yes", 4, "node 3 cannot take over"},
		{"no leader", &scripted{fail: fmt.Errorf("no member leads the fleet: %w", admin.ErrNoLeader)}, "failover --yes", 1, "no member leads"},
		{"outcome unknown", &scripted{fail: fmt.Errorf("nobody knows: %w", admin.ErrOutcome)}, "froze", 1, "nobody knows"},
		{"an unknown task", &scripted{}, "show_task 99", 2, "has no task 99"},
		{"a task without a number", &scripted{}, "task_log x", 2, "give its number"},
		{"nobody to ask", &scripted{task: admin.Task{ID: 8, Node: 3}}, "switch -i 3", 4, "node 3 (192.168.56.43:5432) becomes the primary of cluster01 in place of node 2 (192.168.56.42:5432); it is 152000 bytes (152.0 s) behind, it first catches up; nothing that was committed is lost"},
		{"a loss", &scripted{task: admin.Task{ID: 8}}, "failover", 4, "node 3: it is 152000 bytes (152.0 s) behind, which would be lost"},
		{"no node", &scripted{}, "repair", 2, "give its id with -i"},
		{"a time that has passed", &scripted{}, "switch -i 3 --yes --at 2001-01-01T00:00:00Z", 2, "has passed"},
		{"no time", &scripted{}, "switch -i 3 --yes --at noon", 2, `--at "noon"`},
		{"voters", &scripted{}, "voter remove m1", 4, "remove m1: of 3 voters there will be 2; 0 of them may fail, and below 2 nothing is decided any more"},
		{"adopt unasked", &scripted{}, "adopt", 4, "two fleets"},
		{"change_meta", &scripted{}, "change_meta", 2, "The keys are on_crash, restart_budget"},
		{"init fails", &scripted{fail: errors.New("node 3: no key")}, "init", 1, "node 3: no key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, _ := fleetPort(t, c.script)
			code, out, errOut := cstproxy(append([]string{"ctl", "-f", file}, strings.Fields(c.args)...)...)
			if code != c.code || !strings.Contains(errOut, c.says) {
				t.Errorf("exit code %d, want %d\n%s%s", code, c.code, out, errOut)
			}
		})
	}
	file, _ := adminPort(t, manual{})
	if code, _, errOut := cstproxy("ctl", "-f", file, "members"); code != 4 || !strings.Contains(errOut, "does not operate its clusters") {
		t.Errorf("without a fleet: exit code %d, %s", code, errOut)
	}
}

func TestTheTimeOfAnOrderIsRead(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 30, 0, 0, time.UTC)
	for text, want := range map[string]string{"15:04": "2026-11-21T15:04:00Z", "09:00": "2026-11-22T09:00:00Z", "09:30:01": "2026-11-21T09:30:01Z",
		"+10m": "2026-11-21T09:40:00Z", "2026-12-01 02:00": "2026-12-01T02:00:00Z", "2026-12-01T02:00:00+02:00": "2026-12-01T00:00:00Z"} {
		if got, err := moment(text, now); err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%s: %v, %v, want %s", text, got, err, want)
		}
	}
}

func TestTheBoardShowsEachStepOnce(t *testing.T) {
	var out strings.Builder
	b := &board{out: &out, width: func() int { return 66 }}
	var last admin.Task
	for _, answer := range switching() {
		got, err := answer()
		if err != nil {
			b.trouble(err.Error())
			continue
		}
		last = got.Task
		b.lines(got.Task, got.Lines)
	}
	drawings := strings.Split(out.String(), "\x1b[J")
	want := " ✓ intent      0.01s  switch to node 3, by dba@ops1\n ✓ freeze      0.04s  members route no new writes\n ✓ fence       2.95s  node 2 is shut down in order\n" +
		" ✓ promote     1.00s  m3 leads and goes on: switch 8 is at step p\n ✓ done               done: node 3 is the primary of epoch 4\n"
	if got := drawings[len(drawings)-1]; got != want {
		t.Errorf("task %+v, got\n%s\nwant\n%s", last, got, want)
	}
}

func TestStatusAndStopAreAboutTheProcessThatAnswers(t *testing.T) {
	s := &scripted{}
	file, _ := fleetPort(t, s)
	code, out, errOut := cstproxy("status", "-f", file)
	if code != 0 || !strings.Contains(out, "epoch 3, primary node 2; lease for 1.2s more") || !strings.Contains(out, fmt.Sprint(os.Getpid())) {
		t.Errorf("status: exit code %d\n%s%s", code, out, errOut)
	}
	if code, _, _ := cstproxy("status", "--url", "127.0.0.1:1"); code != 3 {
		t.Errorf("status of nobody: exit code %d", code)
	}

	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	if sleep, err = filepath.EvalSymlinks(sleep); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(sleep, "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	p := admin.Process{PID: child.Process.Pid, Host: host, Executable: sleep}
	for name, wrong := range map[string]admin.Process{"another machine": {PID: p.PID, Host: "elsewhere", Executable: sleep}, "another program": {PID: p.PID, Host: host, Executable: "/usr/bin/cstproxy"}} {
		if err := stopProcess(t.Context(), wrong, stopOrder{within: time.Second}); err == nil {
			t.Errorf("%s was stopped", name)
		}
	}
	if err := stopProcess(t.Context(), p, stopOrder{within: 20 * time.Second}); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil || err.Error() != "signal: terminated" {
		t.Errorf("it ended so: %v", err)
	}
}

func TestTheAdminPortSpeaksPatroni(t *testing.T) {
	_, address := fleetPort(t, &scripted{})
	for path, want := range map[string]string{
		"/history": `[[8,51278800,"2 of 3 see node 4 down","2026-11-21T09:30:00.157000+00:00","stb42"]]`,
		"/cluster": `{"name":"stb42","role":"leader","state":"running","host":"192.168.56.42","port":5432,"timeline":9}`,
	} {
		resp, err := http.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %s, %v, want %s", path, resp.StatusCode, body, err, want)
		}
	}
}
