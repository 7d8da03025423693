package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
)

const token = "8e722522-d733-11e7-93e8-60f81dd129c2"

// fleet is an agent for tests: a picture that a test sets, and the calls that it got.
type fleet struct {
	mu       sync.Mutex
	clusters []Cluster
	calls    []string
	fail     error
}

func (f *fleet) Clusters() []string {
	var names []string
	for _, c := range f.clusters {
		names = append(names, c.Name)
	}
	return names
}

func (f *fleet) Cluster(name string) (Cluster, error) {
	for _, c := range f.clusters {
		if c.Name == name {
			return c, nil
		}
	}
	return Cluster{}, fmt.Errorf("cluster %q: %w", name, ErrUnknown)
}

func (f *fleet) called(verb, cluster string, what any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprint(verb, " ", cluster, " ", what))
	return f.fail
}

func (f *fleet) AddBackend(_ context.Context, cluster, address string) error {
	return f.called("add", cluster, address)
}
func (f *fleet) RemoveBackend(_ context.Context, cluster, address string) error {
	return f.called("delete", cluster, address)
}
func (f *fleet) Attach(_ context.Context, cluster string, node int) error {
	return f.called("attach", cluster, node)
}
func (f *fleet) Detach(_ context.Context, cluster string, node int) error {
	return f.called("detach", cluster, node)
}
func (f *fleet) Drain(_ context.Context, cluster string, node int) error {
	return f.called("drain", cluster, node)
}
func (f *fleet) LastLSN(context.Context, string) ([]NodeLSN, error) {
	return []NodeLSN{{ID: 1, Host: "192.168.56.41", Port: 5432, Timeline: 9, LSN: "0/30E73D0"}, {ID: 2, Host: "192.168.56.42", Port: 5432, Primary: true, Error: "refused"}}, f.fail
}
func (f *fleet) ReplicationDelay(context.Context, string) ([]NodeDelay, error) {
	n := int64(152)
	return []NodeDelay{{ID: 1, Host: "192.168.56.41", Port: 5432, CurrentLSN: "0/30E8038", ReplayDelay: &n, IsSync: "async", State: "normal"}}, f.fail
}

// three is CLup's example: three standbys that take reads and the primary, 42.
func three() *fleet {
	c := Cluster{Name: "cluster01", State: StateNormal, Epoch: 3, Primary: 2}
	for i, host := range []string{"192.168.56.41", "192.168.56.42", "192.168.56.43", "192.168.56.44"} {
		n := Node{ID: i + 1, Host: host, Port: 5432, Role: "standby", Health: "healthy", InRotation: true, Weight: 1}
		if n.ID == 2 {
			n.Role, n.InRotation = "primary", false
		} else {
			c.Backends = append(c.Backends, n.Address())
		}
		c.Nodes = append(c.Nodes, n)
	}
	other := Cluster{Name: "cluster02", State: StateNoPrimary, Why: "no node has been probed yet", Backends: []string{"[::1]:5433"}}
	return &fleet{clusters: []Cluster{c, other}}
}

func (f *fleet) handler() http.Handler {
	return New(Config{Token: token}, nil, f.parts(), zap.NewNop()).Handler()
}

func (f *fleet) parts() Parts {
	return Parts{Observer: f, Backends: f, Nodes: f, Replication: f, Version: "test"}
}

// ask returns the status and the body of one request; T in the target stands for the token.
func ask(t *testing.T, h http.Handler, method, target string) (int, string) {
	t.Helper()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(method, strings.ReplaceAll(target, "token=T", "token="+token), nil))
	return rec.Code, rec.Body.String()
}

func TestBackendListIsByteForByteThatOfCstlb(t *testing.T) {
	f := three()
	for _, c := range []struct {
		name, target string
		backends     []string
		want         string
	}{
		{"three", "/backend/list?token=T", []string{"192.168.56.41:5432", "192.168.56.43:5432", "192.168.56.44:5432"},
			`{"192.168.56.41:5432":{"State":0,"NextAddress":"192.168.56.43:5432","PreAddress":"192.168.56.44:5432"},` +
				`"192.168.56.43:5432":{"State":0,"NextAddress":"192.168.56.44:5432","PreAddress":"192.168.56.41:5432"},` +
				`"192.168.56.44:5432":{"State":0,"NextAddress":"192.168.56.41:5432","PreAddress":"192.168.56.43:5432"}}`},
		{"two", "/backend/list?token=T", []string{"192.168.56.41:5432", "192.168.56.43:5432"},
			`{"192.168.56.41:5432":{"State":0,"NextAddress":"192.168.56.43:5432","PreAddress":"192.168.56.43:5432"},` +
				`"192.168.56.43:5432":{"State":0,"NextAddress":"192.168.56.41:5432","PreAddress":"192.168.56.41:5432"}}`},
		{"one points at itself", "/backend/list?token=T", []string{"a:1"}, `{"a:1":{"State":0,"NextAddress":"a:1","PreAddress":"a:1"}}`},
		{"none", "/backend/list?token=T", nil, `{}`},
		{"the ring's order, not the alphabet's", "/backend/list?token=T", []string{"b:1", "a:1"},
			`{"b:1":{"State":0,"NextAddress":"a:1","PreAddress":"a:1"},"a:1":{"State":0,"NextAddress":"b:1","PreAddress":"b:1"}}`},
		{"another cluster", "/backend/list?token=T&cluster=cluster02", nil,
			`{"[::1]:5433":{"State":0,"NextAddress":"[::1]:5433","PreAddress":"[::1]:5433"}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.clusters[0].Backends = c.backends
			code, body := ask(t, f.handler(), "GET", c.target)
			if code != 200 || body != c.want {
				t.Errorf("%d\n%s\nwant\n%s", code, body, c.want)
			}
		})
	}
}

func TestTheBackendPathsRefuseWhatTheyShould(t *testing.T) {
	for _, c := range []struct {
		method, target string
		fail           error
		code           int
		calls          string
	}{
		{"GET", "/backend/add?backend=10.0.0.1:5432&token=T", nil, 200, "[add cluster01 10.0.0.1:5432]"},
		{"GET", "/backend/delete?backend=[::1]:5432&token=T&cluster=cluster02", nil, 200, "[delete cluster02 [::1]:5432]"},
		{"GET", "/backend/add?backend=10.0.0.1:5432", nil, 403, "[]"},
		{"GET", "/backend/add?backend=10.0.0.1:5432&token=wrong", nil, 403, "[]"},
		{"GET", "/backend/list", nil, 403, "[]"},
		{"GET", "/backend/list?token=", nil, 403, "[]"},
		{"GET", "/backend/add?token=T", nil, 400, "[]"},
		{"GET", "/backend/add?backend=10.0.0.1&token=T", nil, 400, "[]"},
		{"GET", "/backend/add?backend=10.0.0.1:0&token=T", nil, 400, "[]"},
		{"GET", "/backend/add?backend=10.0.0.1:99999&token=T", nil, 400, "[]"},
		{"GET", "/backend/add?backend=:5432&token=T", nil, 400, "[]"},
		{"GET", "/backend/add?backend=a%20b:5432&token=T", nil, 400, "[]"},
		{"GET", "/backend/add?backend=a'b:5432&token=T", nil, 400, "[]"},
		{"GET", "/backend/add?backend=10.0.0.1:5432&token=T&cluster=none", nil, 404, "[]"},
		{"GET", "/backend/add?backend=10.0.0.1:5432&token=T", fmt.Errorf("another system: %w", ErrRefused), 409, "[add cluster01 10.0.0.1:5432]"},
		{"GET", "/backend/add?backend=10.0.0.1:5432&token=T", errors.New("disk full"), 500, "[add cluster01 10.0.0.1:5432]"},
		{"POST", "/backend/add?backend=10.0.0.1:5432&token=T", nil, 405, "[]"},
		{"HEAD", "/backend/add?backend=10.0.0.1:5432&token=T", nil, 405, "[]"},
		{"HEAD", "/backend/delete?backend=10.0.0.1:5432&token=T", nil, 405, "[]"},
		{"PUT", "/backend/list?token=T", nil, 405, "[]"},
	} {
		t.Run(c.method+" "+c.target, func(t *testing.T) {
			f := three()
			f.fail = c.fail
			code, body := ask(t, f.handler(), c.method, c.target)
			if code != c.code || fmt.Sprint(f.calls) != c.calls {
				t.Errorf("%d %v, want %d %s (%s)", code, f.calls, c.code, c.calls, body)
			}
			if strings.Contains(body, token) {
				t.Error("the answer shows the token")
			}
		})
	}
}

func TestWithoutATokenNothingCanBeChanged(t *testing.T) {
	f := three()
	h := New(Config{}, nil, f.parts(), zap.NewNop()).Handler()
	for _, target := range []string{"/backend/list", "/backend/list?token=", "/backend/delete?backend=a:1&token="} {
		if code, body := ask(t, h, "GET", target); code != 403 || !strings.Contains(body, "no token is configured") {
			t.Errorf("%s: %d %s", target, code, body)
		}
	}
	if code, _ := ask(t, h, "POST", "/api/v1/nodes/1/detach"); code != 403 || len(f.calls) > 0 {
		t.Errorf("detach: %d, calls %v", code, f.calls)
	}
}

func TestANewTokenCountsAtOnce(t *testing.T) {
	f := three()
	s := New(Config{Token: token}, nil, f.parts(), zap.NewNop())
	s.Apply(Config{Token: "another-token"})
	if code, _ := ask(t, s.Handler(), "GET", "/backend/list?token=T"); code != 403 {
		t.Errorf("the old token: %d", code)
	}
	if code, _ := ask(t, s.Handler(), "GET", "/backend/list?token=another-token"); code != 200 {
		t.Errorf("the new token: %d", code)
	}
}

func TestHealthPathsSayWhetherToSendClientsHere(t *testing.T) {
	for _, c := range []struct {
		name, target string
		change       func(f *fleet, p *Parts)
		code         int
		holds        string
	}{
		{"the process runs", "/livez", nil, 200, `"ok"`},
		{"the loop is stuck", "/livez", func(_ *fleet, p *Parts) { p.Live = func() string { return "the event loop does not answer" } }, 503, "stuck"},
		{"it is ready", "/readyz", nil, 200, `"ready"`},
		{"it drains", "/readyz", func(_ *fleet, p *Parts) { p.Ready = func() string { return "draining" } }, 503, "draining"},
		{"it drains: no writes", "/primary?cluster=cluster01", func(_ *fleet, p *Parts) { p.Ready = func() string { return "draining" } }, 503, "draining"},
		{"it drains: no reads", "/replica?cluster=cluster01", func(_ *fleet, p *Parts) { p.Ready = func() string { return "draining" } }, 503, "draining"},
		{"nobody serves", "/readyz", func(f *fleet, _ *Parts) {
			f.clusters[0].Primary, f.clusters[0].Backends, f.clusters[1].Backends = 0, nil, nil
		}, 503, "no cluster has a node"},
		{"one cluster alone", "/readyz?cluster=cluster02", nil, 200, "ready"},
		{"a primary", "/primary?cluster=cluster01", nil, 200, `["192.168.56.42:5432"]`},
		{"no primary", "/primary?cluster=cluster02", nil, 503, "no node has been probed yet"},
		{"a primary, and no lease to write there", "/primary?cluster=cluster01", leased(0), 503, "no lease"},
		{"a primary, and a lease", "/primary?cluster=cluster01", leased(0.7), 200, `["192.168.56.42:5432"]`},
		{"not everywhere a primary", "/primary", nil, 503, "cluster02"},
		{"standbys", "/replica?cluster=cluster01", nil, 200, `"192.168.56.44:5432"`},
		{"no standby", "/replica?cluster=cluster02", nil, 503, "no standby takes reads"},
		{"health of one", "/health?cluster=cluster01", nil, 200, `"normal"`},
		{"health of all", "/health", nil, 503, `"no primary"`},
		{"degraded is served", "/health?cluster=cluster01", func(f *fleet, _ *Parts) { f.clusters[0].State, f.clusters[0].Why = StateDegraded, "node 3 is down" }, 200, "node 3 is down"},
		{"an unknown cluster", "/primary?cluster=none", nil, 404, "unknown"},
		{"no cluster at all", "/readyz", func(f *fleet, _ *Parts) { f.clusters = nil }, 503, "no cluster is configured"},
		{"hosts for a cstlb", "/cluster01/get_lb_host", nil, 200, `["192.168.56.41:5432","192.168.56.43:5432","192.168.56.44:5432"]`},
		{"hosts of none", "/none/get_lb_host", nil, 404, "unknown"},
		{"no such path", "/api/v1/none", nil, 404, "not found"},
		{"the wrong method", "/api/v1/nodes/1/attach", nil, 405, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := three()
			parts := f.parts()
			if c.change != nil {
				c.change(f, &parts)
			}
			code, body := ask(t, New(Config{Token: token}, nil, parts, zap.NewNop()).Handler(), "GET", c.target)
			if code != c.code || !strings.Contains(body, c.holds) {
				t.Errorf("%d %s, want %d with %s", code, body, c.code, c.holds)
			}
		})
	}
}

// leased has the member hold a lease of cluster01 for so many seconds more.
func leased(seconds float64) func(*fleet, *Parts) {
	return func(_ *fleet, p *Parts) {
		p.Fleet = &council{shares: []MemberShare{{Cluster: "cluster01", LeaseSeconds: &seconds}}}
	}
}

func TestMetricsTellEveryNode(t *testing.T) {
	f := three()
	lag, seconds := int64(1500), 2.5
	f.clusters[0].Nodes[0].LagBytes, f.clusters[0].Nodes[0].LagSeconds, f.clusters[0].Nodes[0].Timeline = &lag, &seconds, 9
	code, body := ask(t, f.handler(), "GET", "/metrics")
	if code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	for _, line := range []string{
		`cstproxy_build_info{go="`, `cstproxy_cluster_epoch{cluster="cluster01"} 3`, `cstproxy_cluster_has_primary{cluster="cluster02"} 0`,
		`cstproxy_node_in_rotation{address="192.168.56.42:5432",cluster="cluster01",node="2"} 0`,
		`cstproxy_node_lag_bytes{address="192.168.56.41:5432",cluster="cluster01",node="1"} 1500`,
		`cstproxy_node_lag_seconds{address="192.168.56.41:5432",cluster="cluster01",node="1"} 2.5`,
		`cstproxy_node_state{address="192.168.56.42:5432",cluster="cluster01",health="healthy",node="2",role="primary"} 1`,
		`cstproxy_node_timeline{address="192.168.56.41:5432",cluster="cluster01",node="1"} 9`,
		"go_goroutines", "process_open_fds",
	} {
		if !strings.Contains(body, line) {
			t.Errorf("no line %s", line)
		}
	}
}

func TestAPanicOfOneRequestIsAnInternalError(t *testing.T) {
	f := three()
	parts := f.parts()
	parts.Ready = func() string { panic("boom") }
	code, body := ask(t, New(Config{}, nil, parts, zap.NewNop()).Handler(), "GET", "/readyz")
	if code != 500 || strings.Contains(body, "boom") {
		t.Errorf("%d %s", code, body)
	}
}

// serve runs a server on a free port until the test ends and returns its address.
func serve(t *testing.T, f *fleet) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- New(Config{Token: token}, ln, f.parts(), zap.NewNop()).Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return ln.Addr().String()
}

func TestTheClientGetsWhatTheServerKnows(t *testing.T) {
	f := three()
	c, err := NewClient(serve(t, f), token)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	clusters, err := c.Clusters(ctx, "")
	if err != nil || len(clusters) != 2 || clusters[0].Nodes[3].Address() != "192.168.56.44:5432" {
		t.Errorf("clusters %+v, %v", clusters, err)
	}
	if one, err := c.Clusters(ctx, "cluster02"); err != nil || len(one) != 1 {
		t.Errorf("one cluster: %+v, %v", one, err)
	}
	if lsn, err := c.LastLSN(ctx, "cluster01"); err != nil || len(lsn) != 2 || lsn[1].Error != "refused" {
		t.Errorf("lsn %+v, %v", lsn, err)
	}
	if d, err := c.ReplicationDelay(ctx, ""); err != nil || len(d) != 1 || *d[0].ReplayDelay != 152 {
		t.Errorf("delay %+v, %v", d, err)
	}
	if done, err := c.Change(ctx, "", 3, "drain"); err != nil || done != (Outcome{"cluster01", 3, "drain"}) || fmt.Sprint(f.calls) != "[drain cluster01 3]" {
		t.Errorf("drain %+v, %v, calls %v", done, err, f.calls)
	}
	if s, err := c.Stats(ctx); err != nil || string(s) != "{}" {
		t.Errorf("stats %s, %v", s, err)
	}
}

func TestTheClientTellsTheKindsOfFailureApart(t *testing.T) {
	f := three()
	address := serve(t, f)
	f.fail = fmt.Errorf("it is the primary: %w", ErrRefused)
	ctx := context.Background()
	for _, c := range []struct {
		name, address, token, cluster string
		node                          int
		want                          error
		text                          string
	}{
		{"refused", address, token, "", 2, ErrRefused, "it is the primary: refused"},
		{"no token", address, "", "", 2, ErrForbidden, "missing or wrong token"},
		{"an unknown cluster", address, token, "none", 2, ErrUsage, `cluster "none": unknown`},
		{"a bad node", address, token, "", -2, ErrUsage, "the node's id is a number from 1 upwards"},
		{"nobody there", "127.0.0.1:1", token, "", 2, ErrUnreachable, "connection refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, err := NewClient(c.address, c.token)
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.Change(ctx, c.cluster, c.node, "detach")
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.text)
			}
		})
	}
}

func TestSomethingElseAtTheAddressIsUnreachable(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	defer other.Close()
	c, err := NewClient(other.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Clusters(context.Background(), ""); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}

func TestAnAddressForAllInterfacesIsReachedOverLoopback(t *testing.T) {
	for listen, want := range map[string]string{
		"0.0.0.0:8082": "127.0.0.1:8082", ":8082": "127.0.0.1:8082", "[::]:8082": "127.0.0.1:8082",
		"10.0.0.1:1": "10.0.0.1:1", "http://h:1/": "h:1", "[::1]:1": "[::1]:1",
	} {
		c, err := NewClient(listen, "")
		if err != nil || c.Address() != want {
			t.Errorf("%s: %v, %v, want %s", listen, c, err, want)
		}
	}
	if _, err := NewClient("8082", ""); err == nil {
		t.Error("8082 is no address")
	}
}

func TestASlowHeaderDoesNotHoldTheServer(t *testing.T) {
	f := three()
	s := New(Config{}, nil, f.parts(), zap.NewNop())
	if s.http.ReadHeaderTimeout == 0 || s.http.ReadTimeout == 0 || s.http.WriteTimeout <= changeTimeout || s.http.IdleTimeout == 0 || s.http.MaxHeaderBytes == 0 {
		t.Errorf("limits are missing: %+v", s.http)
	}
	if clientTimeout <= changeTimeout || s.http.WriteTimeout < time.Second {
		t.Error("the client gives up before the server answers")
	}
}

func TestTheStateOfANodeSurvivesJSON(t *testing.T) {
	n := Node{ID: 1, Host: "h", Port: 1, Role: "standby", Health: "down", Why: "connection refused"}
	text, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"id":1,"host":"h","port":1,"role":"standby","health":"down","why":"connection refused","in_rotation":false,"weight":0}`; string(text) != want {
		t.Errorf("got %s", text)
	}
}
