package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// The paths of cstlb, byte for byte as CLup's client knows them: the order of the keys, the
// spelling of the fields and the absence of blanks are part of the interface.
func (s *Server) routeCstlb(mux *http.ServeMux) {
	mux.HandleFunc("GET /backend/list", s.withToken(s.listBackends))
	mux.HandleFunc("GET /backend/add", s.withToken(s.changeBackend("add", s.parts.Backends.AddBackend)))
	mux.HandleFunc("GET /backend/delete", s.withToken(s.changeBackend("delete", s.parts.Backends.RemoveBackend)))
	mux.HandleFunc("GET /{cluster}/get_lb_host", s.readHosts)
}

func (s *Server) withToken(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if why := s.forbidden(r); why != "" {
			http.Error(w, why, http.StatusForbidden)
			return
		}
		next(w, r)
	}
}

// backendState is cstlb's State of a backend. Only backends in rotation are listed, so 0 is the
// only value that a client meets.
const backendInRotation = 0

func (s *Server) listBackends(w http.ResponseWriter, r *http.Request) {
	c, err := s.cluster(r.URL.Query().Get("cluster"))
	if err != nil {
		http.Error(w, err.Error(), status(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(ring(c.Backends)) // a client that went away is no error of ours
}

// ring writes the backends as cstlb does: each names its neighbours in round-robin order, and the
// keys stand in that order too (encoding/json would sort a map).
func ring(addresses []string) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	n := len(addresses)
	for i, address := range addresses {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `%s:{"State":%d,"NextAddress":%s,"PreAddress":%s}`, jsonString(address),
			backendInRotation, jsonString(addresses[(i+1)%n]), jsonString(addresses[(i+n-1)%n]))
	}
	b.WriteByte('}')
	return b.Bytes()
}

func jsonString(s string) []byte {
	text, _ := json.Marshal(s) // a string always marshals
	return text
}

func (s *Server) changeBackend(verb string, change func(context.Context, string, string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet { // the mux lets HEAD through with GET, and HEAD must not change anything
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "method not allowed; use GET", http.StatusMethodNotAllowed)
			return
		}
		address := r.URL.Query().Get("backend")
		if err := checkAddress(address); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c, err := s.cluster(r.URL.Query().Get("cluster"))
		if err != nil {
			http.Error(w, err.Error(), status(err))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
		defer cancel()
		log := s.log.With(zap.String("cluster", c.Name), zap.String("address", address), zap.String("client", r.RemoteAddr))
		if err := change(ctx, c.Name, address); err != nil {
			log.Info("order refused", zap.String("verb", verb), zap.String("why", err.Error()))
			http.Error(w, err.Error(), status(err))
			return
		}
		log.Info("order carried out", zap.String("verb", verb), zap.String("why", "asked for over HTTP"))
		_, _ = w.Write([]byte("ok")) // as above
	}
}

// checkAddress wants host:port with a host name or an address (IPv6 in brackets) and a port number.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("backend %q is not an address; write host:port", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("backend %q: the port is a number from 1 to 65535", address)
	}
	const inHost = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:%"
	if host == "" || len(host) > 253 || strings.Trim(host, inHost) != "" {
		return fmt.Errorf("backend %q: the host is a name or an IP address", address)
	}
	for _, c := range host {
		if !strings.ContainsRune(inHost, c) {
			return fmt.Errorf("backend %q: the host is a name or an IP address", address)
		}
	}
	return nil
}

// readHosts answers what a cstlb asks CLup for when it starts. CLup's own body is not public; ours
// is a list of "host:port". A cstlb sends no token here.
func (s *Server) readHosts(w http.ResponseWriter, r *http.Request) {
	c, err := s.cluster(r.PathValue("cluster"))
	if err != nil {
		http.Error(w, err.Error(), status(err))
		return
	}
	hosts := c.Backends
	if hosts == nil {
		hosts = []string{}
	}
	writeJSON(w, http.StatusOK, hosts)
}
