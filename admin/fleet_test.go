package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// council is a fleet for tests: answers that a test sets, and the orders that it got.
type council struct {
	mu     sync.Mutex
	orders []Order
	tasks  []Task
	fail   error
	froze  *Froze
	shares []MemberShare
}

func (c *council) Order(_ context.Context, o Order) (Task, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.orders = append(c.orders, o)
	return Task{ID: 7, Cluster: o.Cluster, Kind: o.Verb}, c.fail
}
func (c *council) Voter(context.Context, VoterChange) error { return c.fail }
func (c *council) Adopt(_ context.Context, a Adoption) (Adopted, error) {
	return Adopted{Floors: map[string]uint64{a.Cluster: a.Epoch}}, c.fail
}
func (c *council) Tasks(string) ([]Task, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tasks, c.fail
}
func (c *council) TaskLog(ctx context.Context, p TaskPlace) (TaskLog, error) {
	if p.From == 9 { // there is nothing more
		<-ctx.Done()
	}
	return TaskLog{Log: p.Log, Next: p.From, Lines: []TaskLine{}, Task: Task{ID: p.ID}}, c.fail
}
func (c *council) Status() FleetStatus {
	return FleetStatus{Member: "m1", Leader: "m2", Clusters: c.shares}
}
func (c *council) Members(context.Context) ([]Member, error) {
	return []Member{{Name: "m1", Role: "voter"}}, c.fail
}
func (c *council) Evidence(context.Context, string) (Evidence, error) {
	return Evidence{Leader: "m2"}, c.fail
}
func (c *council) Meta(cluster string) (Meta, error) {
	if cluster == "cluster02" {
		return Meta{}, ErrUnknown // watched only
	}
	return Meta{Cluster: cluster, Sync: MetaSync{Method: "first", Count: 1, Nodes: []int{3}}, Froze: c.froze, Marks: map[string]string{"4": "fault: it broke"},
		Task: &Task{ID: 7, Kind: "switch", Former: 2, Candidate: 3}, WriteVIP: "192.168.56.40"}, nil
}
func (c *council) Init(_ context.Context, _ string, line func(string)) error {
	line("one")
	line("two")
	return c.fail
}

// sitting is an admin port with a fleet behind it.
func sitting(c *council) http.Handler {
	parts := three().parts()
	parts.Fleet = c
	return New(Config{Token: token}, nil, parts, zap.NewNop()).Handler()
}

func post(h http.Handler, target, body string) (int, string) {
	rec := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, strings.ReplaceAll(target, "token=T", "token="+token), strings.NewReader(body))
	h.ServeHTTP(rec, r)
	return rec.Code, strings.TrimSpace(rec.Body.String())
}

func TestAnOrderOverHTTPBecomesTheFleets(t *testing.T) {
	c := &council{}
	h := sitting(c)
	for _, v := range []struct {
		target, body string
		code         int
		says         string
	}{
		{"/api/v1/clusters/cluster01/switch?token=T", `{"node":3,"why":"drill","by":"dba"}`, 200, `{"id":7,"cluster":"cluster01","kind":"switch"}`},
		{"/api/v1/clusters/cluster01/froze?token=T", ``, 200, `"kind":"froze"`},
		{"/api/v1/clusters/cluster01/repair?token=T", `{}`, 400, "needs the id of a node"},
		{"/api/v1/clusters/cluster01/switch?token=T", `{"nodes":3}`, 400, "unknown field"},
		{"/api/v1/clusters/cluster01/switch?token=T", `{`, 400, "malformed"},
		{"/api/v1/clusters/cluster01/switch?token=T", `{"node":-3}`, 400, "id of a node"},
		{"/api/v1/clusters/none/switch?token=T", `{}`, 404, "unknown"},
		{"/api/v1/clusters/cluster01/explode?token=T", `{}`, 404, ""},
		{"/api/v1/clusters/cluster01/switch", `{"node":3}`, 403, "token"},
		{"/api/v1/clusters/cluster01/init", ``, 403, "token"},
		{"/api/v1/voters", `{}`, 403, "token"},
		{"/api/v1/clusters/cluster01/adopt?token=T", `{"epoch":9}`, 200, `"floors":{"cluster01":9}`},
		{"/api/v1/clusters/cluster01/init?token=T", ``, 200, "{\"line\":\"one\"}\n{\"line\":\"two\"}\n{\"done\":true}"},
	} {
		if code, body := post(h, v.target, v.body); code != v.code || !strings.Contains(body, v.says) {
			t.Errorf("%s %s: %d %s, want %d %s", v.target, v.body, code, body, v.code, v.says)
		}
	}
	if len(c.orders) != 2 || c.orders[0] != (Order{Cluster: "cluster01", Verb: "switch", Node: 3, By: "dba", Why: "drill"}) || !strings.HasPrefix(c.orders[1].By, "HTTP from ") {
		t.Errorf("the fleet got %+v", c.orders)
	}
	if code, _ := ask(t, h, http.MethodGet, "/api/v1/clusters/cluster01/switch?token=T"); code != http.StatusMethodNotAllowed && code != http.StatusNotFound {
		t.Errorf("an order by GET: %d", code)
	}
}

func TestTheFleetsErrorsChooseTheStatus(t *testing.T) {
	for _, v := range []struct {
		fail error
		code int
	}{{ErrRefused, 409}, {ErrUnknown, 404}, {ErrNoLeader, 503}, {ErrOutcome, 504}, {context.DeadlineExceeded, 504}, {errors.New("?"), 500}} {
		h := sitting(&council{fail: fmt.Errorf("a sentence: %w", v.fail)})
		if code, body := post(h, "/api/v1/clusters/cluster01/switch?token=T", "{}"); code != v.code || !strings.Contains(body, "a sentence") {
			t.Errorf("%v: %d %s", v.fail, code, body)
		}
	}
	if code, body := ask(t, three().handler(), http.MethodGet, "/api/v1/members"); code != 501 || !strings.Contains(body, "does not operate") {
		t.Errorf("without a fleet: %d %s", code, body)
	}
}

func TestWhatTheFleetKnowsIsShown(t *testing.T) {
	c := &council{tasks: []Task{{ID: 7, Kind: "switch"}}, froze: &Froze{By: "dba", Why: "upgrade"}}
	h := sitting(c)
	for target, want := range map[string]string{
		"/api/v1/clusters/cluster01/tasks":                       `[{"id":7,`,
		"/api/v1/clusters/cluster01/tasks/7":                     `{"id":7,`,
		"/api/v1/clusters/cluster01/tasks/7/log?from=3&log=L":    `{"log":"L","next":3,"lines":[],`,
		"/api/v1/clusters/cluster01/evidence":                    `"leader":"m2"`,
		"/api/v1/clusters/cluster01/meta":                        `"write_vip":"192.168.56.40"`,
		"/api/v1/members":                                        `{"members":[{"name":"m1"`,
		"/api/v1/status":                                         `"fleet":{"member":"m1"`,
		"/api/v1/clusters?cluster=cluster01":                     `"why":"frozen by dba (upgrade)"`,
		"/api/v1/nodes?cluster=cluster01":                        `"switch_to":3`,
		"/api/v1/clusters?cluster=cluster02":                     `"state":"no primary"`,
		"/cluster":                                               `"role":"sync_standby"`,
		"/history":                                               `[]`,
		"/cluster?cluster=cluster01":                             `"scope":"cluster01","pause":true,"epoch":3`,
		"/api/v1/clusters/cluster01/tasks/7/log?from=0&cluster=": `"task":{"id":7`,
	} {
		if code, body := ask(t, h, http.MethodGet, target); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s, want %s", target, code, body, want)
		}
	}
	for target, want := range map[string]int{"/api/v1/clusters/cluster01/tasks/8": 404, "/api/v1/clusters/cluster01/tasks/x": 400,
		"/api/v1/clusters/cluster01/tasks/7/log?from=-1": 400, "/api/v1/log?token=T": 501, "/api/v1/log": 403} {
		if code, body := ask(t, h, http.MethodGet, target); code != want {
			t.Errorf("%s: %d %s, want %d", target, code, body, want)
		}
	}
	c.fail = ErrNoLeader
	if code, body := ask(t, h, http.MethodGet, "/api/v1/members"); code != 200 || !strings.Contains(body, `"why":"no leader"`) {
		t.Errorf("members without a leader: %d %s", code, body)
	}
}

func TestEventsTellEachChangeOnceAndEndWithTheServer(t *testing.T) {
	c := &council{tasks: []Task{{ID: 7, Kind: "switch", Step: "freeze"}}}
	parts := three().parts()
	parts.Fleet = c
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Token: token}, ln, parts, zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	resp, err := http.Get("http://" + ln.Addr().String() + "/api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var names []string
	lines := bufio.NewScanner(resp.Body)
	until := func(data string) {
		t.Helper()
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				names = append(names, name)
			}
			if strings.HasPrefix(lines.Text(), "data: ") && strings.Contains(lines.Text(), data) {
				return
			}
		}
		t.Fatalf("%q did not come: %v", data, lines.Err())
	}
	until(`"leader":"m2"`)
	c.mu.Lock()
	c.tasks = []Task{{ID: 7, Kind: "switch", Step: "fence"}}
	c.mu.Unlock()
	until(`"step":"fence"`)
	if got := strings.Join(names, " "); got != "cluster task cluster task fleet task" {
		t.Errorf("events: %s", got)
	}
	cancel()
	for lines.Scan() {
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestALongPollEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		code, body := ask(t, sitting(&council{}), http.MethodGet, "/api/v1/clusters/cluster01/tasks/7/log?from=9")
		if code != 200 || time.Since(began) != pollTimeout {
			t.Errorf("%d %s after %v", code, body, time.Since(began))
		}
	})
}

func TestTheRingKeepsTheLastLines(t *testing.T) {
	ring := NewRing(3, zapcore.InfoLevel, zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "msg"}))
	log := zap.New(ring).With(zap.String("member", "m1"))
	for i := range 5 {
		log.Info(fmt.Sprint("line ", i))
	}
	log.Debug("not this")
	want := `{3 0 [line 2	{"member": "m1"} line 3	{"member": "m1"} line 4	{"member": "m1"}]}`
	got := ring.Read(t.Context(), 0)
	if got.Next -= 2; fmt.Sprint(LogLines{got.Next, 0, got.Lines}) != want || got.Missed != 2 {
		t.Errorf("got %v, want %s", got, want)
	}
	if got := ring.Read(t.Context(), 99); len(got.Lines) != 3 {
		t.Errorf("a reader of another life gets %v", got)
	}
	synctest.Test(t, func(t *testing.T) {
		ring := NewRing(3, zapcore.InfoLevel, zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "msg"}))
		zap.New(ring).Info("old")
		read := make(chan LogLines, 1)
		go func() { read <- ring.Read(t.Context(), 1) }()
		synctest.Wait()
		zap.New(ring).Info("new")
		if got := <-read; len(got.Lines) != 1 || got.Lines[0] != "new" || got.Next != 2 {
			t.Errorf("got %v", got)
		}
	})
}

func TestAStreamOutlivesTheTimeToReadARequest(t *testing.T) {
	c := &council{tasks: []Task{{ID: 7, Kind: "switch", Step: "freeze"}}}
	parts := three().parts()
	parts.Fleet = c
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Token: token}, ln, parts, zap.NewNop())
	s.http.ReadTimeout = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	resp, err := http.Get("http://" + ln.Addr().String() + "/api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-time.After(4 * s.http.ReadTimeout)
	c.mu.Lock()
	c.tasks = []Task{{ID: 7, Kind: "switch", Step: "fence"}}
	c.mu.Unlock()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.Contains(lines.Text(), `"step":"fence"`) {
			return
		}
	}
	t.Errorf("the stream broke off: %v", lines.Err())
}
