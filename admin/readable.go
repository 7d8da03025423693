package admin

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// readPath is a health path about reads.
type readPath struct {
	names []string
	// role is which standbys count: Patroni's name of it, or empty for any; none is who is missing then.
	role, none string
	// orPrimary: a primary will do as well.
	orPrimary bool
}

// readPaths are Patroni's. All of them take ?lag=: a standby that is further behind does not count.
func readPaths() []readPath {
	return []readPath{
		{names: []string{"/replica"}, none: "standby"},
		{names: []string{"/read-only"}, none: "node", orPrimary: true},
		{names: []string{"/synchronous", "/sync"}, role: syncStandby, none: "synchronous standby"},
		{names: []string{"/read-only-sync"}, role: syncStandby, none: "synchronous standby or primary", orPrimary: true},
		{names: []string{"/quorum"}, role: quorumStandby, none: "standby of a quorum"},
		{names: []string{"/read-only-quorum"}, role: quorumStandby, none: "standby of a quorum or primary", orPrimary: true},
		{names: []string{"/asynchronous", "/async"}, role: asyncStandby, none: "asynchronous standby"},
	}
}

// readable answers a path about reads: 200 when in every cluster that is asked for somebody takes them.
func (s *Server) readable(p readPath) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		limit, err := lagLimit(r.URL.Query().Get("lag"))
		if err != nil {
			writeJSON(w, http.StatusBadRequest, failure{err.Error()})
			return
		}
		clusters, ok := s.served(w, r)
		if !ok {
			return
		}
		answer := healthAnswer{Status: "ok"}
		for i := range clusters {
			found := s.readers(&clusters[i], p, limit)
			if len(found) == 0 {
				writeJSON(w, http.StatusServiceUnavailable, healthAnswer{Status: "no " + p.none, Why: clusters[i].Name + ": no " + p.none + " takes reads"})
				return
			}
			answer.Nodes = append(answer.Nodes, found...)
		}
		writeJSON(w, http.StatusOK, answer)
	}
}

// readers are the addresses of the cluster's nodes that a path is about.
func (s *Server) readers(c *Cluster, p readPath, limit int64) []string {
	roles := s.syncRoles(c.Name)
	var found []string
	for i := range c.Nodes {
		n := &c.Nodes[i]
		switch {
		case n.ID == c.Primary && n.ID != 0:
			if p.orPrimary && !s.lapsed(c.Name) {
				found = append(found, n.Address())
			}
		case n.Role != "standby" || !n.InRotation:
		case limit != math.MaxInt64 && (n.LagBytes == nil || *n.LagBytes > limit):
		case p.role == "" || p.role == textOr(roles[n.ID], asyncStandby):
			found = append(found, n.Address())
		}
	}
	return found
}

// standbyLeader answers for the primary of a standby cluster, which there is none of here.
func (s *Server) standbyLeader(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusServiceUnavailable, healthAnswer{Status: "no standby leader", Why: "there are no standby clusters"})
}

// lagLimit reads Patroni's ?lag=: bytes, or a number with a unit of PostgreSQL's. Empty is no limit.
func lagLimit(text string) (int64, error) {
	if text == "" {
		return math.MaxInt64, nil
	}
	digits := strings.TrimRight(text, "kMGTB")
	n, err := strconv.ParseInt(digits, 10, 64)
	shift, known := map[string]uint{"": 0, "B": 0, "kB": 10, "MB": 20, "GB": 30, "TB": 40}[text[len(digits):]]
	if err != nil || !known || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("lag %q: want bytes, or a number with kB, MB, GB or TB", text)
	}
	return n << shift, nil
}
