package hook

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// balancer is a load balancer that speaks as cstlb does.
type balancer struct {
	*httptest.Server
	mu      sync.Mutex
	has     map[string]bool
	heard   []string
	status  int // of every answer, when not 0
	nothing bool
}

func newBalancer(t *testing.T, has ...string) *balancer {
	t.Helper()
	b := &balancer{has: map[string]bool{}}
	for _, node := range has {
		b.has[node] = true
	}
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

func (b *balancer) address() string { return strings.TrimPrefix(b.URL, "http://") }

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.FormValue("token") != "a&b secret" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if b.status != 0 {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(b.status)
		return
	}
	node := r.FormValue("backend")
	switch r.URL.Path {
	case "/backend/list":
		if b.nothing {
			http.NotFound(w, r)
			return
		}
		list := map[string]any{}
		for node := range b.has {
			list[node] = map[string]any{"State": 0}
		}
		json.NewEncoder(w).Encode(list)
		return
	case "/backend/add":
		b.has[node] = true
	case "/backend/delete":
		delete(b.has, node)
	}
	b.heard = append(b.heard, strings.TrimPrefix(r.URL.Path, "/backend/")+" "+node)
}

func (b *balancer) said() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	heard := b.heard
	b.heard = nil
	return heard
}

func (b *balancer) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func TestLoadBalancersAreToldOnlyWhatChanged(t *testing.T) {
	old, plain := newBalancer(t, "h1:1", "h2:2", "stranger:9"), newBalancer(t, "h1:1")
	plain.nothing = true
	b, err := NewBalancers([]string{old.address(), plain.address()}, []string{"h1:1", "h2:2", "h3:3"}, "a&b secret")
	if err != nil {
		t.Fatal(err)
	}
	step := func(when string, rotation []string, want, wantPlain []string) {
		t.Helper()
		if err := b.Step(t.Context(), rotation, nil); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if got := old.said(); !slices.Equal(got, want) {
			t.Errorf("%s: told %q, want %q", when, got, want)
		}
		if got := plain.said(); !slices.Equal(got, wantPlain) {
			t.Errorf("%s: told the one without a list %q, want %q", when, got, wantPlain)
		}
	}
	step("at first", []string{"h2:2", "h3:3"}, []string{"add h3:3", "delete h1:1"},
		[]string{"delete h2:2", "add h2:2", "delete h3:3", "add h3:3", "delete h1:1"})
	step("quiet", []string{"h2:2", "h3:3"}, nil, nil)
	step("a change", []string{"h1:1", "h3:3"}, []string{"add h1:1", "delete h2:2"}, []string{"add h1:1", "delete h2:2"})
	// One that was away, and was restarted meanwhile.
	old.set(func() { old.status = http.StatusServiceUnavailable })
	if err := b.Step(t.Context(), []string{"h3:3"}, nil); err == nil || !strings.Contains(err.Error(), "503") || strings.Contains(err.Error(), "secret") {
		t.Errorf("while it is away: %v", err)
	}
	if got := plain.said(); !slices.Equal(got, []string{"delete h1:1"}) {
		t.Errorf("the other one was told %q", got)
	}
	old.set(func() { old.status, old.has = 0, map[string]bool{"h1:1": true, "h2:2": true} })
	step("it is back", []string{"h3:3"}, []string{"add h3:3", "delete h1:1", "delete h2:2"}, nil)
	// One that was told something by others is put right once it is asked again.
	old.set(func() { old.has = map[string]bool{} })
	b.instances[0].asked = b.instances[0].asked.Add(-askAgain)
	step("after a while", []string{"h3:3"}, []string{"add h3:3"}, nil)
}

// One that does not say what it has is told the whole rotation when that is not known, and not again.
func TestALoadBalancerWithoutAListIsNeverEmptied(t *testing.T) {
	plain := newBalancer(t, "h1:1", "h2:2")
	plain.nothing = true
	b, err := NewBalancers([]string{plain.address()}, []string{"h1:1", "h2:2", "h3:3"}, "a&b secret")
	if err != nil {
		t.Fatal(err)
	}
	step := func(when string, rotation, spared, want []string) {
		t.Helper()
		b.instances[0].asked = b.instances[0].asked.Add(-askAgain)
		if err := b.Step(t.Context(), rotation, spared); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if got := plain.said(); !slices.Equal(got, want) {
			t.Errorf("%s: told %q, want %q", when, got, want)
		}
	}
	both := []string{"h1:1", "h2:2"}
	step("at first", both, []string{"h3:3"}, []string{"delete h1:1", "add h1:1", "delete h2:2", "add h2:2"})
	step("half a minute later", both, []string{"h3:3"}, nil)
	step("one that was spared is out of the rotation", both, nil, []string{"delete h3:3"})
	plain.set(func() { plain.status = http.StatusServiceUnavailable })
	b.instances[0].asked = b.instances[0].asked.Add(-askAgain)
	if err := b.Step(t.Context(), both, nil); err == nil {
		t.Error("it was away, and nobody noticed")
	}
	plain.set(func() { plain.status = 0 })
	step("it was away", both, nil, []string{"delete h1:1", "add h1:1", "delete h2:2", "add h2:2", "delete h3:3"})
	step("half a minute after that", both, nil, nil)
}

func TestNobodyIsTakenOutWhoIsSpared(t *testing.T) {
	old := newBalancer(t, "h1:1", "h2:2")
	b, err := NewBalancers([]string{old.address()}, []string{"h1:1", "h2:2", "h3:3"}, "a&b secret")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ rotation, spared, want []string }{
		{nil, []string{"h1:1", "h2:2", "h3:3"}, nil},
		{[]string{"h3:3"}, []string{"h1:1"}, []string{"add h3:3", "delete h2:2"}},
		{[]string{"h3:3"}, nil, []string{"delete h1:1"}},
	} {
		if err := b.Step(t.Context(), c.rotation, c.spared); err != nil {
			t.Error(err)
		}
		if got := old.said(); !slices.Equal(got, c.want) {
			t.Errorf("rotation %q, spared %q: told %q, want %q", c.rotation, c.spared, got, c.want)
		}
	}
}

func TestTheTokenIsNowhereToBeRead(t *testing.T) {
	away := newBalancer(t)
	address := away.address()
	away.Close()
	elsewhere := newBalancer(t)
	elsewhere.status = http.StatusFound
	b, err := NewBalancers([]string{address, elsewhere.address()}, nil, "a&b secret")
	if err != nil {
		t.Fatal(err)
	}
	err = b.Step(t.Context(), []string{"h1:1"}, nil)
	if err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "302") || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "a%26b") {
		t.Error(err)
	}
	if _, err := NewBalancers([]string{"nowhere"}, nil, ""); err == nil {
		t.Error("an address without a port was taken")
	}
}
