package admin

import (
	"net/http"
)

// The health paths: 200 or 503, from what is known already, for GET, HEAD and OPTIONS; Patroni's names work
// too. ?cluster= narrows the question to one cluster.
//
//	/livez    the process runs and its parts answer (/liveness)
//	/readyz   new clients are taken, and some cluster can serve them (/readiness)
//	/primary  new clients are taken, there is a primary, and this member may route writes there (all
//	          clusters, unless one is named) (/, /leader, /master, /read-write)
//	/replica  new clients are taken, and there is a standby that takes reads (same); see readPaths
//	/health   everything at once; 200 while every cluster has a primary
func (s *Server) routeHealth(mux *http.ServeMux) {
	paths := map[string]http.HandlerFunc{
		"/livez": s.live, "/liveness": s.live, "/readyz": s.ready, "/readiness": s.ready, "/health": s.health,
		"/{$}": s.primary, "/primary": s.primary, "/leader": s.primary, "/master": s.primary, "/read-write": s.primary,
		"/standby-leader": s.standbyLeader, "/standby_leader": s.standbyLeader,
	}
	for _, p := range readPaths() {
		for _, name := range p.names {
			paths[name] = s.readable(p)
		}
	}
	for path, answer := range paths {
		mux.HandleFunc("GET "+path, answer)
		mux.HandleFunc("OPTIONS "+path, func(w http.ResponseWriter, r *http.Request) { answer(statusOnly{w}, r) })
	}
}

// statusOnly leaves the body of an answer out.
type statusOnly struct{ http.ResponseWriter }

func (statusOnly) Write(b []byte) (int, error) { return len(b), nil }

type healthAnswer struct {
	Status   string    `json:"status"`
	Why      string    `json:"why,omitempty"`
	Version  string    `json:"version,omitempty"`
	Clusters []Cluster `json:"clusters,omitempty"`
	Nodes    []string  `json:"nodes,omitempty"`
}

func (s *Server) live(w http.ResponseWriter, _ *http.Request) {
	if s.parts.Live != nil {
		if why := s.parts.Live(); why != "" {
			writeJSON(w, http.StatusServiceUnavailable, healthAnswer{Status: "stuck", Why: why, Version: s.parts.Version})
			return
		}
	}
	writeJSON(w, http.StatusOK, healthAnswer{Status: "ok", Version: s.parts.Version})
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	clusters, ok := s.served(w, r)
	if !ok {
		return
	}
	// One cluster that can serve is enough: the clients of the others would only be sent to another
	// member that sees the same.
	for _, c := range clusters {
		if c.Primary != 0 || len(c.Backends) > 0 {
			writeJSON(w, http.StatusOK, healthAnswer{Status: "ready"})
			return
		}
	}
	writeJSON(w, http.StatusServiceUnavailable, healthAnswer{Status: "not ready", Why: "no cluster has a node that takes queries"})
}

func (s *Server) primary(w http.ResponseWriter, r *http.Request) {
	clusters, ok := s.served(w, r)
	if !ok {
		return
	}
	answer := healthAnswer{Status: "ok"}
	for _, c := range clusters {
		if c.Primary == 0 {
			writeJSON(w, http.StatusServiceUnavailable, healthAnswer{Status: StateNoPrimary, Why: c.Name + ": " + c.Why})
			return
		}
		if s.lapsed(c.Name) {
			writeJSON(w, http.StatusServiceUnavailable, healthAnswer{Status: "no lease",
				Why: c.Name + ": this member may not route writes: the other members may have chosen another primary"})
			return
		}
		for _, n := range c.Nodes {
			if n.ID == c.Primary {
				answer.Nodes = append(answer.Nodes, n.Address())
			}
		}
	}
	writeJSON(w, http.StatusOK, answer)
}

// lapsed says whether this member needs a lease to route writes to the cluster's primary, and has none.
func (s *Server) lapsed(cluster string) bool {
	if s.parts.Fleet == nil {
		return false
	}
	for _, c := range s.parts.Fleet.Status().Clusters {
		if c.Cluster == cluster && c.LeaseSeconds != nil {
			return *c.LeaseSeconds <= 0
		}
	}
	return false
}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	clusters, ok := s.asked(w, r)
	if !ok {
		return
	}
	answer, code := healthAnswer{Status: StateNormal, Version: s.parts.Version, Clusters: clusters}, http.StatusOK
	for _, c := range clusters {
		switch {
		case c.State == StateNormal || answer.Status == StateNoPrimary:
			continue
		case c.State == StateNoPrimary:
			code = http.StatusServiceUnavailable
		}
		answer.Status, answer.Why = c.State, c.Name+": "+c.Why
	}
	writeJSON(w, code, answer)
}

// served is asked, of a member that takes new clients.
func (s *Server) served(w http.ResponseWriter, r *http.Request) ([]Cluster, bool) {
	if s.parts.Ready != nil {
		if why := s.parts.Ready(); why != "" {
			writeJSON(w, http.StatusServiceUnavailable, healthAnswer{Status: "not ready", Why: why})
			return nil, false
		}
	}
	return s.asked(w, r)
}

// asked are the clusters that a health request is about: the named one, or all. When it is false
// the answer has been written.
func (s *Server) asked(w http.ResponseWriter, r *http.Request) ([]Cluster, bool) {
	names := s.parts.Observer.Clusters()
	if name := r.URL.Query().Get("cluster"); name != "" {
		names = []string{name}
	}
	clusters := make([]Cluster, 0, len(names))
	for _, name := range names {
		c, err := s.cluster(name)
		if err != nil {
			writeJSON(w, status(err), failure{err.Error()})
			return nil, false
		}
		clusters = append(clusters, c)
	}
	if len(clusters) == 0 {
		writeJSON(w, http.StatusServiceUnavailable, healthAnswer{Status: StateNoPrimary, Why: "no cluster is configured"})
		return nil, false
	}
	return clusters, true
}
