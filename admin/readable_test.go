package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// agreed is a fleet that has agreed on the synchronous standbys.
type agreed struct {
	council
	sync MetaSync
}

func (a *agreed) Meta(string) (Meta, error) { return Meta{Sync: a.sync}, nil }

func TestPatronisHealthPathsAnswerForTheMember(t *testing.T) {
	first := MetaSync{Method: "first", Nodes: []int{3}}
	quorum := MetaSync{Method: "any", Nodes: []int{3, 4}}
	lost := 0.0
	for _, c := range []struct {
		path string
		sync MetaSync
		code int
		says string
	}{
		{"/", first, 200, "56.42:5432"}, {"/leader", first, 200, "56.42:5432"}, {"/master", first, 200, "56.42:5432"}, {"/read-write", first, 200, "56.42:5432"},
		{"/read-write?cluster=cluster02", first, 503, "no node has been probed yet"},
		{"/liveness", first, 200, "ok"}, {"/readiness", first, 200, "ready"}, {"/standby-leader", first, 503, "no standby clusters"},
		{"/replica", first, 200, `["192.168.56.41:5432","192.168.56.43:5432","192.168.56.44:5432"]`},
		{"/replica?lag=1MB", first, 200, `["192.168.56.41:5432","192.168.56.43:5432"]`},
		{"/replica?lag=1048576", first, 200, `["192.168.56.41:5432","192.168.56.43:5432"]`},
		{"/replica?lag=0", first, 200, `["192.168.56.41:5432"]`},
		{"/async?lag=10kB", first, 200, `["192.168.56.41:5432"]`},
		{"/replica?lag=much", first, 400, "want bytes"}, {"/replica?lag=-1", first, 400, "want bytes"}, {"/replica?lag=9999999TB", first, 400, "want bytes"},
		{"/replica?lag=kB", first, 400, "want bytes"},
		{"/sync", first, 200, `["192.168.56.43:5432"]`}, {"/synchronous?lag=0", first, 503, "no synchronous standby takes reads"},
		{"/asynchronous", first, 200, `["192.168.56.41:5432","192.168.56.44:5432"]`},
		{"/quorum", first, 503, "no standby of a quorum"}, {"/quorum", quorum, 200, `["192.168.56.43:5432","192.168.56.44:5432"]`},
		{"/sync", quorum, 503, "no synchronous standby"}, {"/sync", MetaSync{}, 503, "no synchronous standby"},
		{"/read-only?lag=0", first, 200, `["192.168.56.41:5432","192.168.56.42:5432"]`},
		{"/read-only-sync?lag=0", first, 200, `["192.168.56.42:5432"]`}, {"/read-only-quorum", first, 200, `["192.168.56.42:5432"]`},
		{"/read-only?cluster=cluster02", first, 503, "no node takes reads"},
	} {
		f := three()
		for i, lag := range []int64{0, 0, 65536, 1<<20 + 1} {
			f.clusters[0].Nodes[i].LagBytes = &lag
		}
		parts := f.parts()
		parts.Fleet = &agreed{sync: c.sync}
		path := c.path
		if !strings.Contains(path, "cluster=") {
			path += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + "cluster=cluster01"
		}
		h := New(Config{}, nil, parts, zap.NewNop()).Handler()
		if code, body := ask(t, h, http.MethodGet, path); code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("GET %s, %+v: %d %s, want %d %s", path, c.sync, code, body, c.code, c.says)
		}
		if code, _ := ask(t, h, http.MethodHead, path); code != c.code {
			t.Errorf("HEAD %s: %d", path, code)
		}
		if code, body := ask(t, h, http.MethodOptions, path); code != c.code || body != "" {
			t.Errorf("OPTIONS %s: %d %s", path, code, body)
		}
	}

	f := three()
	f.clusters = f.clusters[:1]
	for i := range f.clusters[0].Nodes {
		f.clusters[0].Nodes[i].InRotation = false
	}
	parts := f.parts()
	parts.Fleet = &council{shares: []MemberShare{{Cluster: "cluster01", LeaseSeconds: &lost}}}
	h := New(Config{}, nil, parts, zap.NewNop()).Handler()
	if code, body := ask(t, h, http.MethodGet, "/read-only"); code != 503 {
		t.Errorf("/read-only without a lease and without standbys: %d %s", code, body)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/primary", nil))
	if rec.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /primary: %d", rec.Code)
	}
}
