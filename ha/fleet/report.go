package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/peer"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

const (
	reportMethod  = "fleet/report"
	reportVersion = 1
	maxClusters   = 64
	maxNodes      = 256
	maxWhy        = 300 // bytes of a Sight's Why
	maxAge        = 365 * 24 * time.Hour
)

var errReport = errors.New("malformed report")

// report is what a member tells the leader, every third of a lease and when something changed.
type report struct {
	Version int `json:"version"`
	// Level is the record.Level of the member's build; 0: it comes from before there were levels.
	Level int `json:"level,omitempty"`
	// Birth and Number tell a late report from a newer one of the same life.
	Birth   uint64 `json:"birth"`
	Number  uint64 `json:"number"`
	Witness bool   `json:"witness,omitempty"`
	// Front says that the member holds the members' own address, FrontLapsed how long ago it held it last; 0
	// when it does, or never did.
	Front       bool          `json:"front,omitempty"`
	FrontLapsed time.Duration `json:"front_lapsed,omitempty"`
	// Clusters are by name.
	Clusters map[string]*share `json:"clusters"`
}

// share is the part of a report about one cluster.
type share struct {
	// Request is nil when no lease is asked for.
	Request *lease.Request `json:"request,omitempty"`
	// Frozen is the newest operation whose Freeze the member obeys.
	Frozen record.OperationID `json:"frozen,omitempty"`
	// Drains is the operation for which the member begins no new writes.
	Drains record.OperationID `json:"drains,omitempty"`
	// Epoch, and Known, the version of its published standbys, are what the member goes by.
	Epoch topology.Epoch `json:"epoch,omitempty"`
	Known uint64         `json:"known,omitempty"`
	// Open counts open write transactions.
	Open  int    `json:"open,omitempty"`
	Nodes []Seen `json:"nodes,omitempty"`
}

// Seen is what a member sees of one node. The times in Fact (At, PrimaryAt, Since, Moved) do not
// count: clocks of two members do not compare.
type Seen struct {
	Node  topology.NodeID `json:"node"`
	Sight decide.Sight    `json:"sight"`
	// Fact is what the node said last; nil when it never answered this member. DiskFull and NoVIP do
	// not count: only a look at the host shows them.
	Fact *decide.Fact `json:"fact,omitempty"`
	// Age is how long ago the question was sent that Fact answers.
	Age time.Duration `json:"age,omitempty"`
	// PrimaryAge is how long ago the node's host was asked for Fact.Primary; it counts when that is set.
	PrimaryAge time.Duration `json:"primary_age,omitempty"`
}

// reply is the leader's answer: the leases that it grants, by cluster.
type reply struct {
	Version int                    `json:"version"`
	Leases  map[string]lease.Reply `json:"leases,omitempty"`
	// Front gives the member the members' own address, for frontLeases.
	Front bool `json:"front,omitempty"`
	// Epochs are the epochs that the leader goes by, by cluster.
	Epochs map[string]epochAge `json:"epochs,omitempty"`
}

// epochAge is an epoch, and how long ago it began where that is Known.
type epochAge struct {
	Epoch topology.Epoch `json:"epoch"`
	Known bool           `json:"known,omitempty"`
	Age   time.Duration  `json:"age,omitempty"`
}

// encode shortens what is long and makes a report's body.
func (r *report) encode() ([]byte, error) {
	for _, s := range r.Clusters {
		for i := range s.Nodes {
			if why := &s.Nodes[i].Sight.Why; len(*why) > maxWhy {
				*why = (*why)[:maxWhy]
			}
		}
	}
	body, err := json.Marshal(r)
	if err == nil && len(body) > peer.MaxBody {
		err = peer.ErrTooLong
	}
	return body, err
}

// decodeReport reads a body and checks what later code takes for granted. A report of another version
// is refused: its sender gets no lease until the leader understands it.
func decodeReport(body []byte) (*report, error) {
	r := &report{}
	if err := json.Unmarshal(body, r); err != nil {
		return nil, fmt.Errorf("%w: %w", errReport, err)
	}
	if r.Version != reportVersion {
		return nil, fmt.Errorf("a report of version %d came, and this member reads version %d", r.Version, reportVersion)
	}
	if r.FrontLapsed < 0 || r.FrontLapsed > maxAge {
		return nil, fmt.Errorf("%w: its hold on the members' address lapsed %v ago", errReport, r.FrontLapsed)
	}
	if len(r.Clusters) > maxClusters {
		return nil, fmt.Errorf("%w: %d clusters", errReport, len(r.Clusters))
	}
	for name, s := range r.Clusters {
		if s == nil || s.Open < 0 || len(s.Nodes) > maxNodes {
			return nil, fmt.Errorf("%w: cluster %q", errReport, name)
		}
		for i := range s.Nodes {
			if err := s.Nodes[i].validate(); err != nil {
				return nil, fmt.Errorf("%w: cluster %q, node %d: %w", errReport, name, s.Nodes[i].Node, err)
			}
		}
	}
	return r, nil
}

func (s *Seen) validate() error {
	switch s.Sight.Class {
	case decide.Unprobed, decide.Answers, decide.Refused, decide.Silent, decide.Starting, decide.Denied, decide.Full, decide.Stuck:
	default:
		return errors.New("there is no such class")
	}
	switch {
	case len(s.Sight.Why) > 4*maxWhy: // a cut in the middle of a letter makes that longer
		return errors.New("its reason is too long")
	case s.Sight.Host != "" && s.Sight.Host != "up" && s.Sight.Host != "down":
		return errors.New("its host is neither up nor down")
	case s.Age < 0 || s.Age > maxAge, s.PrimaryAge < 0 || s.PrimaryAge > maxAge, s.Sight.Since < 0 || s.Sight.Since > maxAge:
		return errors.New("its age is none")
	}
	return nil
}

func decodeReply(body []byte) (reply, error) {
	var r reply
	if err := json.Unmarshal(body, &r); err != nil {
		return reply{}, fmt.Errorf("read the answer to a report: %w", err)
	}
	if r.Version != reportVersion {
		return reply{}, fmt.Errorf("an answer of version %d came, and this member reads version %d", r.Version, reportVersion)
	}
	return r, nil
}

func (r *reply) encode() ([]byte, error) { return json.Marshal(r) }
