package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client asks a Server. It holds no connection open between calls longer than idleTimeout.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// Errors that tell a caller of the Client what kind of failure it met.
var (
	// ErrUnreachable: nobody answered at the address, or not in HTTP.
	ErrUnreachable = errors.New("unreachable")
	// ErrUsage: the server does not know what was named, or cannot read the request.
	ErrUsage = errors.New("usage")
	// ErrForbidden: the token is missing or wrong. It is a kind of ErrRefused.
	ErrForbidden = fmt.Errorf("forbidden: %w", ErrRefused)
	// ErrNotOperated: the cstproxy that was asked watches its clusters and does not operate them. It is
	// a kind of ErrRefused.
	ErrNotOperated = fmt.Errorf("not operated: %w", ErrRefused)
)

// clientTimeout is above the server's changeTimeout, so that the server's own words arrive.
const clientTimeout = changeTimeout + 5*time.Second

// maxAnswer bounds what a Client reads, in bytes: 64 nodes need some 30 kB.
const maxAnswer = 8 << 20

// NewClient returns a client for the admin server at listen (host:port as in [admin] listen, or a
// URL). An address that stands for all interfaces is reached over loopback.
func NewClient(listen, token string) (*Client, error) {
	base := listen
	if !strings.Contains(listen, "://") {
		host, port, err := net.SplitHostPort(listen)
		if err != nil {
			return nil, fmt.Errorf("admin address %q: %w", listen, err)
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		base = "http://" + net.JoinHostPort(host, port)
	}
	if u, err := url.Parse(base); err != nil || u.Host == "" {
		return nil, fmt.Errorf("admin address %q is not a URL", listen)
	}
	transport := &http.Transport{IdleConnTimeout: idleTimeout, DisableCompression: true} // no proxy: the way is short
	return &Client{
		base: strings.TrimSuffix(base, "/"), token: token,
		http: &http.Client{Transport: transport},
	}, nil
}

// Address is host:port of the server.
func (c *Client) Address() string {
	_, address, _ := strings.Cut(c.base, "://")
	return address
}

// Clusters are all clusters, or only the one of this name.
func (c *Client) Clusters(ctx context.Context, cluster string) ([]Cluster, error) {
	var list []Cluster
	err := c.call(ctx, request{method: http.MethodGet, path: "/api/v1/clusters", cluster: cluster}, &list)
	return list, err
}

// LastLSN are the positions of the nodes of one cluster; "" names the first.
func (c *Client) LastLSN(ctx context.Context, cluster string) ([]NodeLSN, error) {
	var list []NodeLSN
	err := c.call(ctx, request{method: http.MethodGet, path: "/api/v1/get_last_lsn", cluster: cluster}, &list)
	return list, err
}

// ReplicationDelay is how far the nodes of one cluster are behind; "" names the first.
func (c *Client) ReplicationDelay(ctx context.Context, cluster string) ([]NodeDelay, error) {
	var list []NodeDelay
	err := c.call(ctx, request{method: http.MethodGet, path: "/api/v1/repl_delay", cluster: cluster}, &list)
	return list, err
}

// Change does verb (attach, detach or drain) to a node.
func (c *Client) Change(ctx context.Context, cluster string, node int, verb string) (Outcome, error) {
	var done Outcome
	err := c.call(ctx, request{method: http.MethodPost, path: fmt.Sprintf("/api/v1/nodes/%d/%s", node, url.PathEscape(verb)), cluster: cluster}, &done)
	return done, err
}

// Stats is the data plane's account, as JSON.
func (c *Client) Stats(ctx context.Context) (json.RawMessage, error) {
	var stats json.RawMessage
	err := c.call(ctx, request{method: http.MethodGet, path: "/api/v1/stats", cluster: ""}, &stats)
	return stats, err
}

// request is one question to the server; "" for the cluster leaves it to the server.
type request struct {
	method, path, cluster string
	// body is sent as JSON; nil: none.
	body any
	// within is how long the answer may take; 0: clientTimeout.
	within time.Duration
}

func (c *Client) call(ctx context.Context, r request, into any) error {
	if r.within == 0 {
		r.within = clientTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, r.within)
	defer cancel()
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the admin server's answer: %w: %w", ErrUnreachable, err)
	}
	if resp.StatusCode != http.StatusOK {
		return refusal(resp.StatusCode, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read the admin server's answer at %s: %w: not ours: %w", c.base, ErrUnreachable, err)
	}
	return nil
}

// send returns the answer with its body unread.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	target := c.base + r.path
	if r.cluster != "" {
		target += "?cluster=" + url.QueryEscape(r.cluster)
	}
	var body io.Reader
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("ask the admin server: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("ask the admin server: %w", err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the admin server at %s: %w: %w", c.base, ErrUnreachable, rootCause(err))
	}
	return resp, nil
}

// rootCause leaves out the method and the URL that net/http puts in front.
func rootCause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// refusal turns an answer that is not 200 into an error with the server's words.
func refusal(code int, body []byte) error {
	var f failure
	text := strings.TrimSpace(string(body))
	if json.Unmarshal(body, &f) == nil && f.Error != "" {
		text = f.Error
	}
	kind := error(nil)
	switch code {
	case http.StatusForbidden:
		kind = ErrForbidden
	case http.StatusConflict:
		kind = ErrRefused
	case http.StatusNotImplemented:
		kind = ErrNotOperated
	case http.StatusServiceUnavailable:
		kind = ErrNoLeader
	case http.StatusGatewayTimeout:
		kind = ErrOutcome
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed:
		kind = ErrUsage
	}
	return &answerError{code: code, text: text, kind: kind}
}

// answerError prints the server's words alone: they say more than the status.
type answerError struct {
	code int
	text string
	kind error
}

func (e *answerError) Error() string {
	if e.text == "" {
		return fmt.Sprintf("the admin server answered %d", e.code)
	}
	return e.text
}

func (e *answerError) Unwrap() error { return e.kind }
