package ha

import (
	"fmt"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// viewOf says what one node is good for, after the primary has been chosen.
func (v *verdict) viewOf(f *fact, l limits) topology.NodeView {
	n := topology.NodeView{Node: f.node, Slot: f.slot, Role: f.pulse.observed.Role}
	n.Health, n.Why = v.health(f, l)
	if n.Health == topology.Foreign {
		n.Role = topology.RoleUnknown
	}
	return n
}

// health goes from what rules a node out for certain to what only limits it. Foreign comes before
// an operator's order, so that who trusts the latter does not overlook the former.
func (v *verdict) health(f *fact, l limits) (topology.Health, string) {
	switch f.pulse.condition {
	case conditionUnknown:
		return topology.HealthUnknown, "not probed yet"
	case conditionDown:
		return topology.Down, f.pulse.why
	case conditionStarting:
		return topology.Starting, f.pulse.why
	case conditionDenied:
		return topology.HealthUnknown, f.pulse.why
	}
	switch {
	case f.pulse.seen.IsZero():
		return topology.HealthUnknown, f.pulse.why
	case v.early:
		return topology.HealthUnknown, v.why
	}
	if why := v.foreign(f); why != "" {
		return topology.Foreign, why
	}
	primary := f.node.ID == v.primary
	if why := v.faults[f.node.ID]; why != "" && !primary {
		return topology.Down, why
	}
	if f.pulse.condition == conditionDeaf && !primary {
		return topology.Down, f.pulse.why
	}
	switch f.order {
	case orderDetached:
		return topology.Detached, "detached by an operator"
	case orderDraining:
		return topology.Draining, "drained by an operator"
	}
	if primary {
		return topology.Healthy, f.pulse.why
	}
	if f.lags(v.lagOf(f), l) {
		if f.pulse.observed.Receiver == "" {
			return topology.NotStreaming, "it is behind and receives nothing"
		}
		return topology.Lagging, "it is behind max_lag_bytes or max_lag"
	}
	return topology.Healthy, ""
}

// lagOf is the measured lag, or before the first round what the observations say of it.
func (v *verdict) lagOf(f *fact) lag {
	if f.lag.known || v.known.last == 0 {
		return f.lag
	}
	return lag{known: true, bytes: max(int64(v.known.last)-int64(f.pulse.observed.Replay), 0)}
}

// foreign says why the node does not belong to the cluster as it is now, "" when it does.
func (v *verdict) foreign(f *fact) string {
	o := &f.pulse.observed
	h := v.base
	switch {
	case v.mixed:
		return fmt.Sprintf("its system identifier is %d, other nodes have others, and no primary was seen", o.SystemID)
	case v.known.system != 0 && o.SystemID != v.known.system:
		return fmt.Sprintf("its system identifier is %d, the cluster's is %d", o.SystemID, v.known.system)
	case o.Role == topology.RolePrimary && f.node.ID != v.primary:
		return fmt.Sprintf("it claims to be primary on timeline %d and is not accepted as such", o.Timeline)
	case o.Role == topology.RolePrimary:
		return ""
	}
	at := max(o.Replay, o.Receive)
	on := h.Contains(o.Timeline, at)
	if o.Timeline > 1 && o.History.Known() && h.Known() {
		on = o.History.IsPrefixOf(h, at)
	}
	switch {
	case on:
		return ""
	case o.Timeline < h.Timeline && !h.Known():
		return fmt.Sprintf("it is on timeline %d, and the history of timeline %d cannot be read", o.Timeline, h.Timeline)
	case o.Timeline > h.Timeline:
		return fmt.Sprintf("it is on timeline %d, the primary on %d", o.Timeline, h.Timeline)
	}
	return fmt.Sprintf("it is at %s on timeline %d, which is no part of the primary's timeline %d", at, o.Timeline, h.Timeline)
}
