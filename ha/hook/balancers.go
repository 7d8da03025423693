package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Balancers keeps load balancers of an existing installation (cstlb) informed of who takes reads. It tells
// each of them only the difference to what that one is known to have; what it did not acknowledge is told
// again at the next step. Backends that are no nodes of the cluster are left alone. One goroutine uses it.
type Balancers struct {
	nodes     []string
	token     string
	instances []*instance
	client    *http.Client
}

// instance is one load balancer.
type instance struct {
	address string
	// has are the nodes that it has in rotation; nil: not known. asked is when it was asked for it.
	has   map[string]bool
	asked time.Time
	// open are those that it may have or not, because it has no list.
	open map[string]bool
}

const (
	// callTimeout bounds one call to a load balancer.
	callTimeout = time.Second
	// askAgain is how long it is believed what a load balancer acknowledged: it may have been restarted,
	// or told something by others.
	askAgain = 30 * time.Second
	// longestList bounds what is read of an answer.
	longestList = 1 << 20
)

// NewBalancers is for the load balancers at the addresses "host:port" of instances. nodes are all nodes of
// the cluster, "host:port", as they are in a rotation.
func NewBalancers(instances, nodes []string, token string) (*Balancers, error) {
	b := &Balancers{nodes: slices.Clone(nodes), token: token, client: &http.Client{
		Timeout: callTimeout,
		// The token is for the load balancer alone, so neither a proxy nor a redirection gets it.
		Transport:     &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, address := range instances {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("load balancer %q: want \"host:port\"", address)
		}
		b.instances = append(b.instances, &instance{address: address})
	}
	return b, nil
}

// Step tells every load balancer what it does not know yet of rotation, "host:port" each, and returns when
// all have answered or have not within a second for each call. Of the nodes in spared nobody is told that they
// have left: it is not known. Call it at once when the rotation changed and every few seconds. The error names
// who did not answer.
//
// Leaders alone do this. One that dies here leaves the rest to the next one, which asks for the lists anew; one
// that wakes late may say what was right when it fell asleep, until the next one asks again.
func (b *Balancers) Step(ctx context.Context, rotation, spared []string) error {
	errs := make([]error, len(b.instances))
	var wg sync.WaitGroup
	for i, to := range b.instances {
		wg.Go(func() {
			if err := b.tell(ctx, to, rotation, spared); err != nil {
				to.has = nil
				errs[i] = fmt.Errorf("load balancer %s: %w", to.address, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (b *Balancers) tell(ctx context.Context, to *instance, rotation, spared []string) error {
	if to.has == nil || time.Since(to.asked) >= askAgain {
		if err := b.list(ctx, to); err != nil {
			return err
		}
	}
	// First those who come, so that it never has nobody in between. Who may be there already is taken out
	// first, one at a time: what another kind of load balancer makes of a second entry is not known.
	for _, node := range rotation {
		if to.has[node] {
			continue
		}
		if to.open[node] {
			if _, err := b.call(ctx, to, "delete", node); err != nil {
				return err
			}
		}
		if _, err := b.call(ctx, to, "add", node); err != nil {
			return err
		}
		delete(to.open, node)
		to.has[node] = true
	}
	for _, node := range b.nodes {
		if (to.open[node] || to.has[node]) && !slices.Contains(rotation, node) && !slices.Contains(spared, node) {
			if _, err := b.call(ctx, to, "delete", node); err != nil {
				return err
			}
			delete(to.open, node)
			delete(to.has, node)
		}
	}
	return nil
}

// errNoList is of a load balancer that does not say what it has.
var errNoList = errors.New("it has no list")

// list asks a load balancer what it has. With one that does not say, what it acknowledged stays believed until a
// call to it fails; then it may have anybody.
func (b *Balancers) list(ctx context.Context, to *instance) error {
	to.asked = time.Now()
	body, err := b.call(ctx, to, "list", "")
	switch {
	case errors.Is(err, errNoList) && to.has != nil:
		return nil
	case errors.Is(err, errNoList):
		to.has, to.open = map[string]bool{}, map[string]bool{}
		for _, node := range b.nodes {
			to.open[node] = true
		}
		return nil
	case err != nil:
		return err
	}
	var listed map[string]json.RawMessage
	if err := json.Unmarshal(body, &listed); err != nil {
		return fmt.Errorf("its list is not JSON: %w", err)
	}
	to.has, to.open = map[string]bool{}, nil
	for node := range listed {
		to.has[node] = true
	}
	return nil
}

// call is one request; node "" is none. No error holds the token.
func (b *Balancers) call(ctx context.Context, to *instance, verb, node string) ([]byte, error) {
	query := url.Values{"token": {b.token}}
	if node != "" {
		query.Set("backend", node)
	}
	u := url.URL{Scheme: "http", Host: to.address, Path: "/backend/" + verb, RawQuery: query.Encode()}
	what := strings.TrimSpace(verb + " " + node)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: the address is not usable", what)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		var with *url.Error // its text has the whole URL
		if errors.As(err, &with) {
			err = with.Err
		}
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, longestList))
	switch {
	case resp.StatusCode == http.StatusNotFound && verb == "list":
		return nil, errNoList
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: it answers %s", what, resp.Status)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return body, nil
}
