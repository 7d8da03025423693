package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/ha/fleet"
	"github.com/cstproxy/cstproxy/ha/record"
)

func (s *fleetSource) Policies(cluster string) (admin.Policies, error) {
	c, err := s.fleet.Record(cluster)
	if err != nil {
		return admin.Policies{}, fleetError(err)
	}
	return s.shownPolicies(cluster, c.Policies())
}

func (s *fleetSource) ChangePolicies(ctx context.Context, o admin.PolicyOrder) (admin.Policies, error) {
	a := fleet.Amendment{Cluster: o.Cluster, Amend: record.Amend{Version: o.Version, Set: map[string]string{}, Unset: o.Unset, By: o.By, Why: o.Why}}
	for key, value := range o.Set {
		a.Set[key] = string(value)
	}
	do := s.fleet.Amend
	if o.DryRun {
		do = s.fleet.ForeseeAmend
	}
	m, err := do(ctx, a)
	if err != nil {
		return admin.Policies{}, fleetError(err)
	}
	return s.shownPolicies(o.Cluster, m)
}

// shownPolicies are the policies as this member would have them in force under the log's m.
func (s *fleetSource) shownPolicies(cluster string, m record.Meta) (admin.Policies, error) {
	shown := admin.Policies{Version: m.Version, Policies: []admin.Policy{}}
	here, err := s.policies(cluster, m.Values)
	if err != nil {
		return shown, fleetError(err)
	}
	shown.Trouble = here.Trouble
	for i, p := range here.InForce {
		_, changed := m.Values[p.Key]
		shown.Policies = append(shown.Policies, admin.Policy{Key: p.Key, Value: json.RawMessage(p.Value), File: json.RawMessage(here.File[i].Value), Changed: changed})
	}
	for _, c := range m.Changes {
		shown.Changes = append(shown.Changes, admin.PolicyChange{Version: c.Version, At: time.UnixMilli(c.At), By: c.By, Why: c.Why,
			Set: rawValues(c.Set), Unset: c.Unset, Former: rawValues(c.Former)})
	}
	return shown, nil
}

// rawValues are values of the log, which are written alike in TOML and JSON.
func rawValues(values map[string]string) map[string]json.RawMessage {
	all := map[string]json.RawMessage{}
	for key, text := range values {
		if raw := json.RawMessage(text); json.Valid(raw) {
			all[key] = raw
		}
	}
	return all
}
