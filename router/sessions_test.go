package router

import (
	"fmt"
	"strings"
	"testing"
)

var kindNames = [...]string{
	EffectNone: "none", EffectBegin: "begin", EffectCommit: "commit", EffectRollback: "rollback",
	EffectSavepoint: "savepoint", EffectRollbackTo: "rollback to", EffectRelease: "release",
	EffectPrepareTransaction: "prepare transaction", EffectSetTransaction: "set transaction",
	EffectSet: "set", EffectSetLocal: "set local", EffectReset: "reset", EffectResetAll: "reset all",
	EffectDiscardAll: "discard all", EffectDiscard: "discard", EffectDeallocate: "deallocate",
	EffectDeallocateAll: "deallocate all", EffectPin: "pin", EffectUnpin: "unpin", EffectDDL: "ddl",
	EffectRoute: "route", EffectShowRoute: "show route",
}

var modeNames = []struct {
	mode Modes
	name string
}{
	{ModeReadOnly, "ro"}, {ModeReadWrite, "rw"}, {ModeSerializable, "ser"}, {ModeRepeatableRead, "rr"},
	{ModeReadCommitted, "rc"}, {ModeDeferrable, "def"}, {ModeNotDeferrable, "nodef"}, {ModeSnapshot, "snap"}, {ModeChain, "chain"},
}

func show(effects []Effect) string {
	var out []string
	for _, e := range effects {
		s := kindNames[e.Kind]
		for _, m := range modeNames {
			if e.Modes&m.mode != 0 {
				s += " " + m.name
			}
		}
		if e.Name != "" {
			s += " <" + e.Name + ">"
		}
		if e.Value != "" {
			s += " <" + e.Value + ">"
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func TestTextsDoToTheirSessionWhatTheySay(t *testing.T) {
	c := New(DefaultConfig())
	cases(t, "effects.txt", 1, func(l line) []string {
		return []string{show(c.Classify([]byte(l.sql), offline).Effects)}
	})
}

func TestSessionsFollowTheirTurns(t *testing.T) {
	c := New(DefaultConfig())
	var s *Session
	cases(t, "sessions.txt", 4, func(l line) []string {
		if l.want[0] == "new" {
			s = NewSession(SessionConfig{})
			if name, value, ok := strings.Cut(l.sql, "="); ok {
				s.Startup(name, value)
			}
			return []string{"new", "", "", ""}
		}
		var turn []*Verdict
		if l.sql != "" {
			for _, text := range strings.Split(l.sql, " ;; ") {
				turn = append(turn, c.Classify([]byte(text), offline))
			}
		}
		r := s.Route(turn)
		status, how, _ := strings.Cut(l.want[0], " ")
		outcome := Failed
		if how == "ok" {
			outcome = Succeeded
		}
		settled := show(s.Done(turn, TxStatus(status[0]), outcome))
		var pins []string
		for _, p := range s.Pins() {
			pins = append(pins, strings.TrimSpace(p.Reason+" "+p.About))
		}
		return []string{l.want[0], fmt.Sprintf("%s %s", r.Target, r.Why), strings.Join(pins, ", "), settled}
	})
}
