package admin

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"
)

// The JSON interface of ctl. Reading needs no token; changing needs POST and the token.
func (s *Server) routeAPI(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/clusters", s.apiClusters)
	mux.HandleFunc("GET /api/v1/nodes", s.apiNodes)
	mux.HandleFunc("GET /api/v1/stats", s.apiStats)
	mux.HandleFunc("GET /api/v1/get_last_lsn", s.apiLastLSN)
	mux.HandleFunc("GET /api/v1/repl_delay", s.apiDelay)
	nodes := s.parts.Nodes
	mux.HandleFunc("POST /api/v1/nodes/{node}/attach", s.apiChange("attach", nodes.Attach))
	mux.HandleFunc("POST /api/v1/nodes/{node}/detach", s.apiChange("detach", nodes.Detach))
	mux.HandleFunc("POST /api/v1/nodes/{node}/drain", s.apiChange("drain", nodes.Drain))
}

// Address is "host:port".
func (n Node) Address() string { return net.JoinHostPort(n.Host, strconv.Itoa(n.Port)) }

func (s *Server) apiClusters(w http.ResponseWriter, r *http.Request) {
	clusters, ok := s.asked(w, r)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), holdingTimeout)
	defer cancel()
	for i := range clusters {
		s.holdings(ctx, &clusters[i])
	}
	writeJSON(w, http.StatusOK, clusters)
}

// holdingTimeout is how long a picture of the clusters may wait for the leader's word on the virtual
// addresses: it is most wanted while nobody leads.
const holdingTimeout = 500 * time.Millisecond

// holdings adds where the leader has seen the cluster's virtual addresses.
func (s *Server) holdings(ctx context.Context, c *Cluster) {
	if c.WriteVIP == "" && c.ReadVIP == "" || s.parts.Fleet == nil || s.parts.Fleet.Status().Leader == "" {
		return
	}
	e, err := s.parts.Fleet.Evidence(ctx, c.Name)
	if err != nil {
		return // then it is not known; the rest of the picture is
	}
	for i := range e.Addresses {
		switch h := &e.Addresses[i]; h.Kind {
		case "write":
			c.WriteVIPAt = h
		case "read":
			c.ReadVIPAt = h
		}
	}
}

func (s *Server) apiNodes(w http.ResponseWriter, r *http.Request) {
	if c, ok := s.apiCluster(w, r); ok {
		writeJSON(w, http.StatusOK, c.Nodes)
	}
}

func (s *Server) apiStats(w http.ResponseWriter, _ *http.Request) {
	if s.parts.Stats == nil {
		writeJSON(w, http.StatusOK, struct{}{})
		return
	}
	writeJSON(w, http.StatusOK, s.parts.Stats())
}

func (s *Server) apiLastLSN(w http.ResponseWriter, r *http.Request) {
	c, ok := s.apiCluster(w, r)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	list, err := s.parts.Replication.LastLSN(ctx, c.Name)
	if err != nil {
		writeJSON(w, status(err), failure{err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, list)
}

func (s *Server) apiDelay(w http.ResponseWriter, r *http.Request) {
	c, ok := s.apiCluster(w, r)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	list, err := s.parts.Replication.ReplicationDelay(ctx, c.Name)
	if err != nil {
		writeJSON(w, status(err), failure{err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, list)
}

func (s *Server) apiChange(verb string, change func(context.Context, string, int) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if why := s.forbidden(r); why != "" {
			writeJSON(w, http.StatusForbidden, failure{why})
			return
		}
		node, err := strconv.Atoi(r.PathValue("node"))
		if err != nil || node <= 0 {
			writeJSON(w, http.StatusBadRequest, failure{"the node's id is a number from 1 upwards"})
			return
		}
		c, ok := s.apiCluster(w, r)
		if !ok {
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
		defer cancel()
		log := s.log.With(zap.String("cluster", c.Name), zap.Int("node", node), zap.String("client", r.RemoteAddr))
		if err := change(ctx, c.Name, node); err != nil {
			log.Info("order refused", zap.String("verb", verb), zap.String("why", err.Error()))
			writeJSON(w, status(err), failure{err.Error()})
			return
		}
		log.Info("order carried out", zap.String("verb", verb), zap.String("why", "asked for over HTTP"))
		writeJSON(w, http.StatusOK, Outcome{Cluster: c.Name, Node: node, Done: verb})
	}
}

func (s *Server) apiCluster(w http.ResponseWriter, r *http.Request) (Cluster, bool) {
	c, err := s.cluster(r.URL.Query().Get("cluster"))
	if err != nil {
		writeJSON(w, status(err), failure{err.Error()})
		return Cluster{}, false
	}
	return c, true
}
