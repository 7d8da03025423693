package router

import "slices"

// maxPending bounds what one transaction's SETs and savepoints may keep. A client that goes beyond
// keeps its server to itself from then on.
const maxPending = 4096

// maxPins bounds the list of pins; more of one reason are merged into one without a detail.
const maxPins = 64

// pending is an effect that waits for its transaction's commit, or a savepoint among them.
type pending struct {
	Effect
	times int // consecutive savepoints of one name (drivers set one before every statement)
}

// Done takes note of how the turn ended. Turn is the verdicts of the texts that were executed in
// it, in order, also those parsed in earlier turns; a text that was only parsed or described has
// no effect. The answer is what is in force for the session from now on: settings of a transaction
// are in it only once that is committed, in the order of their execution. It is valid until the
// next call.
func (s *Session) Done(turn []*Verdict, status TxStatus, outcome Outcome) []Effect {
	s.settled = s.settled[:0]
	if s.status == TxIdle && status == TxIdle && !acts(turn) {
		return nil
	}
	if outcome == Succeeded {
		s.succeeded(turn)
	} else {
		s.failed(turn)
	}
	if status == TxIdle {
		if outcome == Succeeded {
			s.settle()
		}
		s.pending = s.pending[:0]
	}
	s.status = status
	return s.settled
}

// acts says whether any text of the turn has an effect on its session.
func acts(turn []*Verdict) bool {
	for _, v := range turn {
		if len(v.Effects) > 0 {
			return true
		}
	}
	return false
}

func (s *Session) succeeded(turn []*Verdict) {
	aborted := s.status == TxFailed
	for _, v := range turn {
		for i := range v.Effects {
			e := v.Effects[i]
			switch e.Kind {
			case EffectCommit, EffectPrepareTransaction:
				if !aborted { // COMMIT of a failed transaction rolls it back
					s.settle()
				}
				s.pending, aborted = s.pending[:0], false
			case EffectRollback:
				s.pending, aborted = s.pending[:0], false
			case EffectRollbackTo:
				s.rollbackTo(e.Name)
				aborted = false
			case EffectSavepoint:
				s.savepoint(e)
			case EffectRelease:
				s.release(e.Name)
			default:
				s.execute(e)
			}
		}
	}
}

// execute notes one effect other than those on the transaction itself.
func (s *Session) execute(e Effect) {
	switch e.Kind {
	case EffectDiscardAll: // runs outside transactions only
		s.settle()
		s.pending = s.pending[:0]
		s.apply(e)
	case EffectDeallocate, EffectDeallocateAll:
		s.apply(e) // prepared statements know no rollback
	case EffectPin, EffectUnpin:
		if survivesRollback(e.Name) {
			s.apply(e)
			return
		}
		s.wait(e)
	case EffectSet, EffectReset, EffectResetAll, EffectDiscard, EffectDDL, EffectRoute:
		s.wait(e)
	}
}

// failed notes a turn that ended with an error. What one statement did is rolled back with it. Of
// several, those before the error count when the turn also ended a transaction or set a savepoint;
// how many were executed is not known here, so that the session keeps the server, which knows.
func (s *Session) failed(turn []*Verdict) {
	statements, control, settings := 0, false, false
	for _, v := range turn {
		statements += v.Statements
		for i := range v.Effects {
			switch e := &v.Effects[i]; e.Kind {
			case EffectCommit, EffectRollback, EffectPrepareTransaction, EffectRollbackTo:
				control, settings = true, settings || len(s.pending) > 0
			case EffectSavepoint:
				control = true // what waits is older than the savepoint, should that now exist
			case EffectDiscardAll, EffectDeallocate, EffectDeallocateAll:
				control, settings = true, true
			case EffectPin:
				settings = true
				if survivesRollback(e.Name) {
					s.apply(*e)
				}
			case EffectSet, EffectReset, EffectResetAll, EffectRoute:
				settings = true
			}
		}
	}
	if statements > 1 && control && settings {
		s.addPin(Pin{Reason: PinUncertain})
	}
}

func (s *Session) wait(e Effect) {
	if len(s.pending) >= maxPending {
		s.addPin(Pin{Reason: PinUncertain})
		return
	}
	s.pending = append(s.pending, pending{Effect: e, times: 1})
}

func (s *Session) savepoint(e Effect) {
	if n := len(s.pending); n > 0 {
		if last := &s.pending[n-1]; last.Kind == EffectSavepoint && last.Name == e.Name {
			last.times++
			return
		}
	}
	s.wait(e)
}

// rollbackTo forgets what came after the savepoint. One that is not found was set in a turn that
// failed after it: all that waits here is older.
func (s *Session) rollbackTo(name string) {
	for i := len(s.pending) - 1; i >= 0; i-- {
		if s.pending[i].Kind == EffectSavepoint && s.pending[i].Name == name {
			s.pending = s.pending[:i+1]
			return
		}
	}
}

// release forgets the savepoint and those after it, and keeps their settings.
func (s *Session) release(name string) {
	for i := len(s.pending) - 1; i >= 0; i-- {
		if s.pending[i].Kind != EffectSavepoint || s.pending[i].Name != name {
			continue
		}
		rest := slices.DeleteFunc(s.pending[i+1:], func(p pending) bool { return p.Kind == EffectSavepoint })
		s.pending = s.pending[:i+1+len(rest)]
		if s.pending[i].times--; s.pending[i].times == 0 {
			s.pending = slices.Delete(s.pending, i, i+1)
		}
		return
	}
}

// settle puts what waited for the commit into force.
func (s *Session) settle() {
	for i := range s.pending {
		if s.pending[i].Kind != EffectSavepoint {
			s.apply(s.pending[i].Effect)
		}
	}
	s.pending = s.pending[:0]
}

func (s *Session) apply(e Effect) {
	switch e.Kind {
	case EffectSet:
		s.now.set(e.Name, e.Value)
	case EffectReset:
		s.now.reset(e.Name, s.start)
	case EffectRoute:
		if e.Value == "" {
			s.now.choice = s.start.choice
		} else {
			s.now.set("cstproxy.route", e.Value)
		}
	case EffectResetAll:
		s.now = s.start
	case EffectDiscardAll:
		s.now = s.start
		s.pins = slices.DeleteFunc(s.pins, func(p Pin) bool { return !survivesDiscardAll(p.Reason) })
	case EffectDeallocate:
		s.removePins(PinPrepared, e.Name)
	case EffectDeallocateAll:
		s.removePins(PinPrepared, "")
	case EffectPin:
		s.addPin(Pin{Reason: e.Name, About: e.Value})
	case EffectUnpin:
		s.removePins(e.Name, e.Value)
	}
	s.settled = append(s.settled, e)
}

// Pin is one reason why the session must keep its server connection.
type Pin struct {
	// Reason is one of the Pin… constants.
	Reason string
	// About is the parameter, channel or lock that it is about, "" when that is not known.
	About string
}

// Pins are the session's pins, the oldest first; the caller must not change them.
func (s *Session) Pins() []Pin { return s.pins }

// Pinned says whether the session must keep its server after this turn although no transaction is
// open, and why.
func (s *Session) Pinned() (reason string, ok bool) {
	if len(s.pins) == 0 {
		return "", false
	}
	return s.pins[0].Reason, true
}

// Unpin ends all pins because what they were about is gone: the server was replaced by one to
// which the machine brought the session's state, or was cleaned.
func (s *Session) Unpin() { s.pins = s.pins[:0] }

func (s *Session) addPin(p Pin) {
	counted := p.Reason == PinLock && p.About != "" // a lock taken twice is released twice
	same, of := 0, 0
	for _, q := range s.pins {
		if q == p {
			same++
		}
		if q.Reason == p.Reason {
			of++
		}
	}
	if same > 0 && !counted {
		return
	}
	if of >= maxPins {
		s.removePins(p.Reason, "")
		p.About = ""
	}
	s.pins = append(s.pins, p)
}

// removePins ends the pins of a reason; with about only one that is about it, if there is one.
func (s *Session) removePins(reason, about string) {
	if about == "" {
		s.pins = slices.DeleteFunc(s.pins, func(p Pin) bool { return p.Reason == reason })
		return
	}
	if i := slices.Index(s.pins, Pin{reason, about}); i >= 0 {
		s.pins = slices.Delete(s.pins, i, i+1)
	}
}
