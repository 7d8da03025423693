package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Policymaker keeps the values by which a cluster's fleet decides.
type Policymaker interface {
	// Policies are those in force here, and what the fleet's log has changed.
	Policies(cluster string) (Policies, error)
	// ChangePolicies changes some for all members and returns what is in force then; with
	// PolicyOrder.DryRun what would be. ErrInvalid: the values cannot be obeyed; ErrRefused: somebody
	// else has changed policies meanwhile, or not all members can read such a change.
	ChangePolicies(ctx context.Context, o PolicyOrder) (Policies, error)
}

// ErrInvalid: what was asked for cannot be obeyed (400).
var ErrInvalid = errors.New("invalid")

// Policies are the values by which a cluster's fleet decides.
type Policies struct {
	// Version is that of the changes in the fleet's log; 0: there is none.
	Version  uint64   `json:"version"`
	Policies []Policy `json:"policies"`
	// Trouble says why some changed values are not in force on the member that answers.
	Trouble string `json:"trouble,omitempty"`
	// Changes are the last ones, oldest first.
	Changes []PolicyChange `json:"changes,omitempty"`
}

// Policy is one value, written as in the file: a text ("3s"), a number or true and false.
type Policy struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
	// File is what the file of the member that answers says; it counts where Changed is not set.
	File    json.RawMessage `json:"file"`
	Changed bool            `json:"changed"`
}

// PolicyChange is one change, that made Version.
type PolicyChange struct {
	Version uint64                     `json:"version"`
	At      time.Time                  `json:"at"`
	By      string                     `json:"by"`
	Why     string                     `json:"why,omitempty"`
	Set     map[string]json.RawMessage `json:"set,omitempty"`
	Unset   []string                   `json:"unset,omitempty"`
	// Former are the values that the log had for these keys.
	Former map[string]json.RawMessage `json:"former,omitempty"`
}

// PolicyOrder changes policies.
type PolicyOrder struct {
	Cluster string `json:"cluster,omitempty"`
	// Version is that of the Policies which were looked at; when it is not the newest the order is refused.
	Version uint64                     `json:"version"`
	Set     map[string]json.RawMessage `json:"set,omitempty"`
	// Unset are keys whose value is each member's file's again.
	Unset  []string `json:"unset,omitempty"`
	By     string   `json:"by,omitempty"`
	Why    string   `json:"why,omitempty"`
	DryRun bool     `json:"dry_run,omitempty"`
}

func (s *Server) policies(r *http.Request) (any, error) {
	name, err := s.clusterOf(r)
	if err != nil {
		return nil, err
	}
	return s.parts.Fleet.Policies(name)
}

func (s *Server) changePolicies(r *http.Request) (any, error) {
	o := PolicyOrder{}
	if err := body(r, &o); err != nil {
		return nil, err
	}
	name, err := s.clusterOf(r)
	if err != nil {
		return nil, err
	}
	if len(o.Set)+len(o.Unset) == 0 {
		return nil, fmt.Errorf("%w: set and unset name no policy", errMalformed)
	}
	o.Cluster, o.By = name, by(o.By, r)
	ctx, cancel := context.WithTimeout(r.Context(), orderTimeout)
	defer cancel()
	return s.parts.Fleet.ChangePolicies(ctx, o)
}

// Policies are those of the cluster, and their last changes.
func (c *Client) Policies(ctx context.Context, cluster string) (Policies, error) {
	var p Policies
	err := c.call(ctx, request{method: http.MethodGet, path: clusterPath(cluster, "policies")}, &p)
	return p, err
}

// ChangePolicies changes some for all members, or says with PolicyOrder.DryRun what they would be.
// PolicyOrder.Cluster must be set.
func (c *Client) ChangePolicies(ctx context.Context, o PolicyOrder) (Policies, error) {
	var p Policies
	err := c.call(ctx, request{method: http.MethodPost, path: clusterPath(o.Cluster, "policies"), body: o, within: orderTimeout + clientTimeout}, &p)
	return p, err
}
