package fleet

import (
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/decide"
)

// Decision is what this member decided as leader, and why.
type Decision struct {
	At         time.Time
	Why, Alarm string
	// Entry says that something was proposed to the log; Actions are what was begun or goes on.
	Entry   bool
	Actions []decide.Action
}

// Evidence is the last decisions about a cluster, oldest first; nil while this member does not lead.
func (f *Fleet) Evidence(cluster string) []Decision {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reign == nil || f.reign.seats[cluster] == nil {
		return nil
	}
	return slices.Clone(f.reign.seats[cluster].decisions)
}

// explain logs and keeps a decision, unless only the figures in its reason are new.
func (f *Fleet) explain(s *seat, plan decide.Plan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	log := f.log.With(zap.String("cluster", s.Name), zap.Uint64("epoch", uint64(s.epoch)))
	if plan.Alarm != s.alarm {
		s.alarm = plan.Alarm
		if plan.Alarm != "" {
			log.Warn("alarm", zap.String("why", plan.Alarm))
		}
	}
	why := unfigured(plan.Why)
	if why == s.why && plan.Entry == nil {
		return
	}
	s.why = why
	s.decisions = append(s.decisions, Decision{At: time.Now(), Why: plan.Why, Alarm: plan.Alarm, Entry: plan.Entry != nil, Actions: plan.Actions})
	s.decisions = s.decisions[max(0, len(s.decisions)-f.cfg.Evidence):]
	log.Info("decision", zap.String("why", plan.Why))
}

// unfigured leaves out of a reason what changes while it stays the same: durations and positions.
func unfigured(why string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(why), func(word string) bool { return strings.ContainsAny(word, "0123456789") }), " ")
}
