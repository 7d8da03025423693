package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"
)

const (
	// eventPause is the shortest time between two looks for events, eventBeat between two signs of life
	// on a stream that has none.
	eventPause = 250 * time.Millisecond
	eventBeat  = 15 * time.Second
	// maxStreams bounds the event streams: each looks at everything four times a second.
	maxStreams = 32
)

// endsWith calls cancel when the server is about to end; the result takes that back.
func (s *Server) endsWith(cancel context.CancelFunc) (stop func()) {
	done := make(chan struct{})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case <-s.ending:
			cancel()
		case <-done:
		}
	}()
	return func() { close(done); <-gone }
}

// stream is an answer that goes on.
type stream struct {
	w    http.ResponseWriter
	ctrl *http.ResponseController
}

func startStream(w http.ResponseWriter, kind string) *stream {
	s := &stream{w, http.NewResponseController(w)}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	return s
}

// write sends text at once; an error says that nobody reads any more.
func (s *stream) write(text string) error {
	// A recorder in a test knows no deadlines; a socket does.
	_ = s.ctrl.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.ctrl.Flush()
}

// events is a stream of server-sent events: "cluster" with the cluster's JSON when anything but its
// positions has changed, "task" with a task's when it began, moved on or ended, "fleet" with this
// member's status when the leader or the members changed.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		writeJSON(w, http.StatusServiceUnavailable, failure{"too many event streams are open"})
		return
	}
	out, sent := startStream(w, "text/event-stream"), map[string]string{}
	tick := time.NewTicker(eventPause)
	defer tick.Stop()
	last := time.Now()
	for {
		for _, e := range s.now() {
			if sent[e.key] == e.sign {
				continue
			}
			sent[e.key], last = e.sign, time.Now()
			if out.write(fmt.Sprintf("event: %s\ndata: %s\n\n", e.name, e.data)) != nil {
				return
			}
		}
		if time.Since(last) > eventBeat {
			last = time.Now()
			if out.write(": still here\n\n") != nil {
				return
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.ending:
			return
		case <-tick.C:
		}
	}
}

// event is a state of something; sign is what makes it worth telling again.
type event struct{ name, key, sign, data string }

func newEvent(name, key string, data, sign any) event {
	text, _ := json.Marshal(data) // of wire types only, which can always be written
	mark, _ := json.Marshal(sign)
	return event{name, name + " " + key, string(mark), string(text)}
}

// now is everything that events tell.
func (s *Server) now() []event {
	var list []event
	for _, name := range s.parts.Observer.Clusters() {
		c, err := s.cluster(name)
		if err != nil {
			continue // gone with a reload
		}
		still := c
		still.Nodes = append([]Node{}, c.Nodes...)
		for i := range still.Nodes {
			n := &still.Nodes[i]
			n.LSN, n.LagBytes, n.LagSeconds, n.LastSeen = "", nil, nil, nil
		}
		list = append(list, newEvent("cluster", name, c, still))
		if s.parts.Fleet == nil {
			continue
		}
		tasks, err := s.parts.Fleet.Tasks(name)
		if err != nil {
			continue
		}
		for _, t := range tasks[max(0, len(tasks)-10):] {
			list = append(list, newEvent("task", fmt.Sprint(name, " ", t.ID), t, t))
		}
	}
	if s.parts.Fleet != nil {
		f := s.parts.Fleet.Status()
		still := f
		still.Clusters = append([]MemberShare{}, f.Clusters...)
		for i := range still.Clusters {
			still.Clusters[i].LeaseSeconds = nil
		}
		list = append(list, newEvent("fleet", "", f, still))
	}
	return list
}

// initHosts streams what the preparation of the hosts does and finds, a line of JSON each; the last
// one has "done" or "error".
func (s *Server) initHosts(w http.ResponseWriter, r *http.Request) {
	if why := s.forbidden(r); why != "" {
		writeJSON(w, http.StatusForbidden, failure{why})
		return
	}
	if s.parts.Fleet == nil {
		writeJSON(w, http.StatusNotImplemented, failure{errNoFleet.Error()})
		return
	}
	name, err := s.clusterOf(r)
	if err != nil {
		writeJSON(w, status(err), failure{err.Error()})
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stop := s.endsWith(cancel)
	defer stop()
	out := startStream(w, "application/x-ndjson")
	say := func(line initLine) {
		text, _ := json.Marshal(line) // three strings
		if out.write(string(text)+"\n") != nil {
			cancel()
		}
	}
	err = s.parts.Fleet.Init(ctx, name, func(text string) { say(initLine{Line: text}) })
	s.log.Info("order", zap.String("path", r.URL.Path), zap.String("client", r.RemoteAddr), zap.Error(err))
	if err != nil {
		say(initLine{Error: err.Error()})
		return
	}
	say(initLine{Done: true})
}

type initLine struct {
	Line  string `json:"line,omitempty"`
	Done  bool   `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
}

// memberLog answers with this member's own log. It names clients, so it needs the token.
func (s *Server) memberLog(w http.ResponseWriter, r *http.Request) {
	if why := s.forbidden(r); why != "" {
		writeJSON(w, http.StatusForbidden, failure{why})
		return
	}
	if s.parts.Log == nil {
		writeJSON(w, http.StatusNotImplemented, failure{"this process keeps no log in memory"})
		return
	}
	from, err := strconv.ParseUint(textOr(r.URL.Query().Get("from"), "0"), 10, 64)
	if err != nil {
		writeJSON(w, http.StatusBadRequest, failure{"from is a number"})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), pollTimeout)
	defer cancel()
	stop := s.endsWith(cancel)
	defer stop()
	writeJSON(w, http.StatusOK, s.parts.Log.Read(ctx, from))
}
