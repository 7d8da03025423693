package admin

import (
	"fmt"
	"net/http"
)

// patroniMember is a node as Patroni's GET /cluster tells it.
type patroniMember struct {
	Name string `json:"name"`
	// Role is "leader", "sync_standby", "quorum_standby" or "replica".
	Role string `json:"role"`
	// State is "running" (the leader), "streaming" or what is wrong.
	State    string `json:"state"`
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Timeline uint32 `json:"timeline,omitempty"`
	// Lag is bytes, or "unknown"; the leader has none.
	Lag any `json:"lag,omitempty"`
	// Tags holds what is not Patroni's.
	Tags map[string]any `json:"tags,omitempty"`
}

// patroniAnswer is the body of Patroni's GET /cluster; epoch is ours.
type patroniAnswer struct {
	Members []patroniMember `json:"members"`
	Scope   string          `json:"scope"`
	Pause   bool            `json:"pause,omitempty"`
	Epoch   uint64          `json:"epoch"`
}

// Patroni's names of a standby's role.
const (
	syncStandby   = "sync_standby"
	quorumStandby = "quorum_standby"
	asyncStandby  = "replica"
)

// syncRoles are the roles of the synchronous standbys, as agreed on; none where nothing is operated.
func (s *Server) syncRoles(cluster string) map[int]string {
	roles := map[int]string{}
	if s.parts.Fleet == nil {
		return roles
	}
	m, err := s.parts.Fleet.Meta(cluster)
	if err != nil {
		return roles // watched, not operated
	}
	role := syncStandby
	if m.Sync.Method == "any" {
		role = quorumStandby
	}
	for _, id := range m.Sync.Nodes {
		roles[id] = role
	}
	return roles
}

// patroniCluster answers with the roles, states, timelines and lags.
func (s *Server) patroniCluster(w http.ResponseWriter, r *http.Request) {
	c, ok := s.apiCluster(w, r)
	if !ok {
		return
	}
	sync := s.syncRoles(c.Name)
	answer := patroniAnswer{Scope: c.Name, Epoch: c.Epoch, Pause: c.Froze != nil, Members: []patroniMember{}}
	for _, n := range c.Nodes {
		m := patroniMember{Name: patroniName(&n), Role: textOr(sync[n.ID], asyncStandby), State: "streaming", Host: n.Host, Port: n.Port, Timeline: n.Timeline}
		switch {
		case n.ID == c.Primary:
			m.Role, m.State = "leader", "running"
		case n.Health != "healthy":
			m.State = n.Health
			fallthrough
		default:
			m.Lag = "unknown"
			if n.LagBytes != nil {
				m.Lag = *n.LagBytes
			}
		}
		if n.NoLoadBalance {
			m.Tags = map[string]any{"noloadbalance": true}
		}
		answer.Members = append(answer.Members, m)
	}
	writeJSON(w, http.StatusOK, answer)
}

// patroniName is the node's name where Patroni's is: the one under which it streams.
func patroniName(n *Node) string { return textOr(n.AppName, fmt.Sprintf("node%d", n.ID)) }

func textOr(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

// patroniTime is how Patroni writes times.
const patroniTime = "2006-01-02T15:04:05.000000-07:00"

// history answers as Patroni does: for each former timeline its number, where it ended, why, when (empty
// when it is not remembered) and the new primary.
func (s *Server) history(r *http.Request) (any, error) {
	c, err := s.cluster(r.URL.Query().Get("cluster"))
	if err != nil {
		return nil, err
	}
	m, err := s.parts.Fleet.Meta(c.Name)
	if err != nil {
		return nil, err
	}
	rows := [][]any{}
	for _, f := range m.Former {
		leader, at := "", ""
		if f.Primary != 0 {
			leader = fmt.Sprintf("node%d", f.Primary)
		}
		for i := range c.Nodes {
			if c.Nodes[i].ID == f.Primary {
				leader = patroniName(&c.Nodes[i])
			}
		}
		if f.At != nil {
			at = f.At.Format(patroniTime)
		}
		rows = append(rows, []any{f.Timeline, f.End, textOr(f.Why, "no longer remembered"), at, leader})
	}
	return rows, nil
}
