package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"go.uber.org/zap"
)

const (
	// orderTimeout covers an election and the commit after it.
	orderTimeout = 20 * time.Second
	adoptTimeout = 40 * time.Second
	// pollTimeout is how long a request for new lines waits for some.
	pollTimeout = 20 * time.Second
)

var errNoFleet = errors.New("this cstproxy watches and does not operate its clusters: set enabled = true in [cluster.operation], or make it a member of a [fleet]")

// routeFleet adds what needs a fleet.
func (s *Server) routeFleet(mux *http.ServeMux) {
	for _, verb := range []string{"switch", "failover", "repair", "clone", "restart", "froze", "unfroze", "cancel"} {
		mux.HandleFunc("POST /api/v1/clusters/{cluster}/"+verb, s.changing(func(r *http.Request) (any, error) { return s.order(r, verb) }))
	}
	mux.HandleFunc("POST /api/v1/clusters/{cluster}/adopt", s.changing(s.adopt))
	mux.HandleFunc("POST /api/v1/clusters/{cluster}/init", s.initHosts)
	mux.HandleFunc("POST /api/v1/voters", s.changing(s.voter))
	mux.HandleFunc("GET /api/v1/members", s.asking(s.members))
	mux.HandleFunc("GET /api/v1/clusters/{cluster}/tasks", s.asking(s.tasks))
	mux.HandleFunc("GET /api/v1/clusters/{cluster}/tasks/{id}", s.asking(s.task))
	mux.HandleFunc("GET /api/v1/clusters/{cluster}/tasks/{id}/log", s.asking(s.taskLog))
	mux.HandleFunc("GET /api/v1/clusters/{cluster}/evidence", s.asking(s.evidence))
	mux.HandleFunc("GET /api/v1/clusters/{cluster}/meta", s.asking(s.meta))
	mux.HandleFunc("GET /api/v1/clusters/{cluster}/policies", s.asking(s.policies))
	mux.HandleFunc("POST /api/v1/clusters/{cluster}/policies", s.changing(s.changePolicies))
	mux.HandleFunc("GET /api/v1/status", s.process)
	mux.HandleFunc("GET /history", s.asking(s.history))
	mux.HandleFunc("GET /cluster", s.patroniCluster)
	mux.HandleFunc("GET /api/v1/events", s.events)
	mux.HandleFunc("GET /api/v1/log", s.memberLog)
}

// asking answers what reads; the error chooses the status.
func (s *Server) asking(do func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.parts.Fleet == nil {
			writeJSON(w, http.StatusNotImplemented, failure{errNoFleet.Error()})
			return
		}
		value, err := do(r)
		if err != nil {
			writeJSON(w, status(err), failure{err.Error()})
			return
		}
		writeJSON(w, http.StatusOK, value)
	}
}

// changing is asking for what needs the token, and says in the log who did what.
func (s *Server) changing(do func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if why := s.forbidden(r); why != "" {
			writeJSON(w, http.StatusForbidden, failure{why})
			return
		}
		s.asking(func(r *http.Request) (any, error) {
			value, err := do(r)
			s.log.Info("order", zap.String("path", r.URL.Path), zap.String("client", r.RemoteAddr), zap.Error(err))
			return value, err
		})(w, r)
	}
}

// body reads a request's JSON; none at all leaves into as it is.
func body(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil && r.ContentLength != 0 {
		return fmt.Errorf("the request's body: %w: %w", errMalformed, err)
	}
	return nil
}

// clusterOf is the name of the request's path, which must be one of a cluster.
func (s *Server) clusterOf(r *http.Request) (string, error) {
	name := r.PathValue("cluster")
	if name == "" {
		name = r.URL.Query().Get("cluster")
	}
	c, err := s.cluster(name)
	return c.Name, err
}

// by is whom the history names when the client does not say who it is.
func by(said string, r *http.Request) string {
	const longest = 100 // bytes
	if said != "" {
		return said[:min(len(said), longest)]
	}
	return "HTTP from " + r.RemoteAddr
}

func (s *Server) order(r *http.Request, verb string) (any, error) {
	o := Order{}
	if err := body(r, &o); err != nil {
		return nil, err
	}
	name, err := s.clusterOf(r)
	if err != nil {
		return nil, err
	}
	o.Cluster, o.Verb, o.By = name, verb, by(o.By, r)
	if o.Node < 0 || o.Node == 0 && (verb == "repair" || verb == "clone" || verb == "restart") {
		return nil, fmt.Errorf("%w: %s needs the id of a node", errMalformed, verb)
	}
	if !o.At.IsZero() && verb != "switch" {
		return nil, fmt.Errorf("%w: only a switch can be planned", errMalformed)
	}
	ctx, cancel := context.WithTimeout(r.Context(), orderTimeout)
	defer cancel()
	return s.parts.Fleet.Order(ctx, o)
}

func (s *Server) adopt(r *http.Request) (any, error) {
	o := Adoption{}
	if err := body(r, &o); err != nil {
		return nil, err
	}
	name, err := s.clusterOf(r)
	if err != nil {
		return nil, err
	}
	o.Cluster, o.By = name, by(o.By, r)
	ctx, cancel := context.WithTimeout(r.Context(), adoptTimeout)
	defer cancel()
	return s.parts.Fleet.Adopt(ctx, o)
}

func (s *Server) voter(r *http.Request) (any, error) {
	c := VoterChange{}
	if err := body(r, &c); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), orderTimeout)
	defer cancel()
	if err := s.parts.Fleet.Voter(ctx, c); err != nil {
		return nil, err
	}
	return c, nil
}

// memberList is the answer of GET /api/v1/members. Why is why it is only what this member knows.
type memberList struct {
	Members []Member `json:"members"`
	Why     string   `json:"why,omitempty"`
}

func (s *Server) members(r *http.Request) (any, error) {
	list, err := s.parts.Fleet.Members(r.Context())
	if err != nil && len(list) == 0 {
		return nil, err
	}
	answer := memberList{Members: list}
	if err != nil {
		answer.Why = err.Error()
	}
	return answer, nil
}

func (s *Server) tasks(r *http.Request) (any, error) {
	name, err := s.clusterOf(r)
	if err != nil {
		return nil, err
	}
	return s.parts.Fleet.Tasks(name)
}

func (s *Server) task(r *http.Request) (any, error) {
	name, err := s.clusterOf(r)
	if err != nil {
		return nil, err
	}
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: a task's id is a number", errMalformed)
	}
	list, err := s.parts.Fleet.Tasks(name)
	if err != nil {
		return nil, err
	}
	for _, t := range list {
		if t.ID == id {
			return t, nil
		}
	}
	return nil, fmt.Errorf("cluster %s has no task %d, or has forgotten it: %w", name, id, ErrUnknown)
}

func (s *Server) taskLog(r *http.Request) (any, error) {
	name, err := s.clusterOf(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	from := 0
	if text := q.Get("from"); err == nil && text != "" {
		from, err = strconv.Atoi(text)
	}
	if err != nil || from < 0 {
		return nil, fmt.Errorf("%w: a task's id and from are numbers", errMalformed)
	}
	ctx, cancel := context.WithTimeout(r.Context(), pollTimeout)
	defer cancel()
	stop := s.endsWith(cancel)
	defer stop()
	return s.parts.Fleet.TaskLog(ctx, TaskPlace{Cluster: name, ID: id, Log: q.Get("log"), From: from})
}

func (s *Server) evidence(r *http.Request) (any, error) {
	name, err := s.clusterOf(r)
	if err != nil {
		return nil, err
	}
	return s.parts.Fleet.Evidence(r.Context(), name)
}

func (s *Server) meta(r *http.Request) (any, error) {
	name, err := s.clusterOf(r)
	if err != nil {
		return nil, err
	}
	m, err := s.parts.Fleet.Meta(name)
	if err != nil {
		return nil, err
	}
	p, err := s.parts.Fleet.Policies(name)
	if err != nil {
		return nil, err
	}
	p.Changes, m.Policies = nil, &p
	return m, nil
}

// process answers `cstproxy status` and stop.
func (s *Server) process(w http.ResponseWriter, _ *http.Request) {
	p := Process{Version: s.parts.Version, PID: os.Getpid(), Started: s.started}
	p.Host, _ = os.Hostname()         // without a name nobody is told to stop it
	p.Executable, _ = os.Executable() // as above
	if s.parts.Ready != nil {
		p.Draining = s.parts.Ready()
	}
	if s.parts.Fleet != nil {
		fleet := s.parts.Fleet.Status()
		p.Fleet = &fleet
	}
	writeJSON(w, http.StatusOK, p)
}

// agreed adds to what this member observes of a cluster what the fleet has agreed on.
func (s *Server) agreed(c *Cluster) {
	if s.parts.Fleet == nil {
		return
	}
	m, err := s.parts.Fleet.Meta(c.Name)
	if err != nil {
		return // watched, not operated
	}
	c.Planned = m.Planned
	c.Froze, c.Task, c.WriteVIP, c.ReadVIP = m.Froze, m.Task, m.WriteVIP, m.ReadVIP
	for i := range c.Nodes {
		n := &c.Nodes[i]
		n.Mark = m.Marks[strconv.Itoa(n.ID)]
		if m.Task != nil && m.Task.Candidate != 0 && n.ID == m.Task.Former {
			n.SwitchTo = m.Task.Candidate
		}
	}
	if m.Froze != nil {
		text := "frozen by " + m.Froze.By
		if m.Froze.Why != "" {
			text += " (" + m.Froze.Why + ")"
		}
		if c.Why != "" {
			text += "; " + c.Why
		}
		c.Why = text
	}
}
