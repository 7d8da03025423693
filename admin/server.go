// Package admin is the HTTP side of cstproxy: cstlb's API for the lists of read backends, health
// paths for load balancers and orchestrators, Prometheus metrics, and /api/v1 for ctl, together
// with the Client that ctl uses. It answers from what the agent already knows; only requests that
// change something, or that ask for positions of this moment, reach a PostgreSQL server.
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Observer knows the clusters.
type Observer interface {
	// Clusters are the names, in the order of the configuration.
	Clusters() []string
	// Cluster is the newest picture of one of them; ErrUnknown when there is none of this name.
	Cluster(name string) (Cluster, error)
}

// Backends is the list of read backends of a cluster, as cstlb understands it.
type Backends interface {
	AddBackend(ctx context.Context, cluster, address string) error
	RemoveBackend(ctx context.Context, cluster, address string) error
}

// Nodes takes nodes out of the traffic and back in.
type Nodes interface {
	Attach(ctx context.Context, cluster string, node int) error
	Detach(ctx context.Context, cluster string, node int) error
	Drain(ctx context.Context, cluster string, node int) error
}

// Replication asks the servers for their positions of this moment.
type Replication interface {
	LastLSN(ctx context.Context, cluster string) ([]NodeLSN, error)
	ReplicationDelay(ctx context.Context, cluster string) ([]NodeDelay, error)
}

// Errors of the interfaces above that choose the HTTP status; any other error is 500.
var (
	// ErrUnknown: there is no such cluster or node (404).
	ErrUnknown = errors.New("unknown")
	// ErrRefused: the request is understood, and the state of the cluster forbids it (409).
	ErrRefused = errors.New("refused")
	// ErrAddress: an address cannot be read (400).
	ErrAddress = errors.New("malformed address")
	// errMalformed: a request cannot be read (400).
	errMalformed = errors.New("malformed request")
)

// Parts is what a Server speaks for.
type Parts struct {
	Observer    Observer
	Backends    Backends
	Nodes       Nodes
	Replication Replication
	// Fleet operates the clusters; nil: they are watched only.
	Fleet Fleet
	// Log is what GET /api/v1/log tells; nil: nothing.
	Log *Ring
	// Live says why the process should be started again; "" while all is well. nil: always well.
	Live func() string
	// Ready says why the data plane takes no new clients; "" while it does. nil: always ready.
	Ready func() string
	// Stats is the data plane's own account for GET /api/v1/stats; nil: an empty object.
	Stats func() any
	// Collectors are further metrics for /metrics.
	Collectors []prometheus.Collector
	// Version is what /livez and the build metric say.
	Version string
}

// Server answers the admin port.
type Server struct {
	parts Parts
	ln    net.Listener
	token atomic.Pointer[string]
	http  *http.Server
	log   *zap.Logger

	started time.Time
	ending  chan struct{} // closed when Run is about to end: streams end by themselves
	streams chan struct{} // has a place for each event stream
}

// Limits of one request. An admin request is a line with a few parameters; a slow or large one is
// a mistake or an attack. changeTimeout covers the probe of a new backend.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 2 * time.Minute
	changeTimeout = 15 * time.Second
	closeTimeout  = 3 * time.Second
	maxHeader     = 16 << 10 // bytes
	maxBody       = 64 << 10 // bytes
)

// New returns a server for the listener, which Run closes.
func New(cfg Config, ln net.Listener, parts Parts, log *zap.Logger) *Server {
	s := &Server{parts: parts, ln: ln, log: log, started: time.Now(), ending: make(chan struct{}), streams: make(chan struct{}, maxStreams)}
	s.Apply(cfg)
	errorLog, _ := zap.NewStdLogAt(log, zap.DebugLevel) // fails for unknown levels only
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          errorLog,
	}
	return s
}

// Apply makes a new token effective. The listen address stays as it is until a restart.
func (s *Server) Apply(cfg Config) { s.token.Store(&cfg.Token) }

// Run serves until ctx ends, lets running requests finish for a moment, and returns.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the admin port %s: %w", s.ln.Addr(), err)
	case <-ctx.Done():
	}
	close(s.ending)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := s.http.Shutdown(limit); err != nil {
		s.log.Info("admin requests were cut off", zap.Error(err))
		_ = s.http.Close() // what it could not close is closed by the process's end
	}
	<-served
	return nil
}

// Handler is the whole admin port without its socket.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	s.routeCstlb(mux)
	s.routeHealth(mux)
	s.routeAPI(mux)
	s.routeFleet(mux)
	mux.Handle("GET /metrics", s.metrics())
	return s.guarded(http.MaxBytesHandler(mux, maxBody))
}

// guarded keeps a panic of one request from the rest.
func (s *Server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("admin request panicked", zap.Any("panic", p), zap.String("path", r.URL.Path), zap.Stack("stack"))
				http.Error(w, "internal error", http.StatusInternalServerError)
			}
		}()
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// forbidden says why a request may not pass; "" when it presented the token. The comparison takes
// the same time wherever the tokens differ, also in length.
func (s *Server) forbidden(r *http.Request) string {
	want := *s.token.Load()
	if want == "" {
		return "no token is configured here, so this is closed; set token in the section [admin]"
	}
	got := r.URL.Query().Get("token")
	if bearer, ok := bearerToken(r); ok {
		got = bearer
	}
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(got))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return "missing or wrong token"
	}
	return ""
}

func bearerToken(r *http.Request) (string, bool) {
	const scheme = "Bearer "
	h := r.Header.Get("Authorization")
	if len(h) > len(scheme) && h[:len(scheme)] == scheme {
		return h[len(scheme):], true
	}
	return "", false
}

// cluster is the one that a request names, or the first.
func (s *Server) cluster(name string) (Cluster, error) {
	if name == "" {
		names := s.parts.Observer.Clusters()
		if len(names) == 0 {
			return Cluster{}, fmt.Errorf("no cluster is configured: %w", ErrUnknown)
		}
		name = names[0]
	}
	c, err := s.parts.Observer.Cluster(name)
	if err == nil {
		s.agreed(&c)
	}
	return c, err
}

// status is the HTTP status of an error of the parts.
func status(err error) int {
	switch {
	case errors.Is(err, ErrUnknown):
		return http.StatusNotFound
	case errors.Is(err, ErrRefused):
		return http.StatusConflict
	case errors.Is(err, ErrAddress), errors.Is(err, errMalformed), errors.Is(err, ErrInvalid):
		return http.StatusBadRequest
	case errors.Is(err, ErrNoLeader):
		return http.StatusServiceUnavailable
	case errors.Is(err, ErrOutcome):
		return http.StatusGatewayTimeout
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n')) // a client that went away is no error of ours
}
