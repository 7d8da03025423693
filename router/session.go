package router

// TxStatus is the transaction status of ReadyForQuery.
type TxStatus byte

const (
	TxIdle   TxStatus = 'I' // no transaction
	TxOpen   TxStatus = 'T' // in a transaction
	TxFailed TxStatus = 'E' // in a transaction that can only be rolled back
)

// Outcome is how a turn ended.
type Outcome int

const (
	// Failed: an ErrorResponse came; of several statements some may have been executed.
	Failed Outcome = iota
	// Succeeded: every statement of the turn was executed.
	Succeeded
)

// Why phrases of Session that a caller may want to recognise.
const (
	WhyInTransaction = "in transaction"
	WhyReadOnlyPort  = "read-only port"
	WhySerializable  = "serializable"
	WhyRouteSetting  = "cstproxy.route"
	WhyRule          = "routing rule"
	WhyHint          = "hint"
	WhyVolatile      = whyVolatile
)

// SessionConfig is what holds for a session from its first moment.
type SessionConfig struct {
	// StandbyOnly is set for clients of a listener with mode = "standby": all that they send goes
	// to a standby, which refuses their writes.
	StandbyOnly bool
	// Rule is Match.Choice of the rules that hold for the session.
	Rule RouteChoice
}

// Session follows one session: its transaction, its pins, its hints and those settings that
// decide where its transactions go. It belongs to the loop's goroutine. The machine calls Route
// when it has a whole turn, and Done at that turn's ReadyForQuery.
type Session struct {
	cfg     SessionConfig
	start   defaults // what RESET goes back to
	now     defaults
	status  TxStatus
	pending []pending // what the open transaction will do to the session at its commit
	settled []Effect  // answer of the last Done
	pins    []Pin
}

// defaults are the settings that new transactions start with.
type defaults struct {
	choice       RouteChoice // cstproxy.route
	readOnly     bool        // default_transaction_read_only
	serializable bool        // default_transaction_isolation
}

// NewSession returns the state of a session that has just logged in.
func NewSession(cfg SessionConfig) *Session {
	return &Session{cfg: cfg, status: TxIdle}
}

// Startup tells the session a parameter that it starts with: from the startup packet, from its
// options (-c name=value), or from the ParameterStatus messages of its first login
// (default_transaction_read_only is reported since PostgreSQL 14). Other names are ignored, and
// so is a value that cannot be understood: RouteChoice must then be checked by the caller.
func (s *Session) Startup(name, value string) {
	s.start.set(foldString(name), value)
	s.now = s.start
}

// Retune replaces what the rules say, after application_name or the rules changed.
func (s *Session) Retune(rule RouteChoice) { s.cfg.Rule = rule }

// RouteChoice is the session's cstproxy.route, for SHOW cstproxy.route.
func (s *Session) RouteChoice() RouteChoice { return s.now.choice }

// Status is the transaction status of the last Done.
func (s *Session) Status() TxStatus { return s.status }

func (d *defaults) set(name, value string) {
	switch name {
	case "cstproxy.route":
		if c, ok := ParseRouteChoice(literal(value)); ok {
			d.choice = c
		}
	case "default_transaction_read_only":
		d.readOnly = isTrue(literal(value))
	case "default_transaction_isolation":
		d.serializable = !isWeakIsolation(literal(value))
	}
}

func (d *defaults) reset(name string, start defaults) {
	switch name {
	case "cstproxy.route":
		d.choice = start.choice
	case "default_transaction_read_only":
		d.readOnly = start.readOnly
	case "default_transaction_isolation":
		d.serializable = start.serializable
	}
}

// Route decides where the turn goes: one decision for the whole turn. Turn is the verdicts of all
// texts that are parsed, described, bound or executed in it, in order.
func (s *Session) Route(turn []*Verdict) Route {
	if s.status != TxIdle {
		return Route{Pinned, WhyInTransaction}
	}
	if len(s.pins) > 0 {
		return Route{Pinned, s.pins[0].Reason}
	}
	return s.Need(turn)
}

// Need is what the turn would need if the session held no server: it tells what to do when Route
// says Pinned and the held server is a standby (a pin made in a read only transaction).
func (s *Session) Need(turn []*Verdict) Route {
	if s.cfg.StandbyOnly {
		return Route{Standby, WhyReadOnlyPort}
	}
	var worst *Verdict
	hinted, starts := true, false
	for _, v := range turn {
		if turn[len(turn)-1] != v && v.changesReading() {
			return Route{Primary, whyReading}
		}
		if worst == nil || v.level() > worst.level() {
			worst = v
		}
		hinted = hinted && v.hinted
		starts = starts || len(v.Effects) > 0
	}
	switch {
	case worst == nil:
		return Route{Standby, whyEmpty}
	case worst.level() == proofWrite:
		return Route{Primary, worst.Route.Why}
	case s.now.serializable && worst.proof > proofNeutral:
		return Route{Primary, WhySerializable}
	case worst.proof == proofNeutral:
		return worst.Route
	}
	choice, why := s.chosen(turn)
	if hinted {
		choice, why = ChooseStandby, WhyHint
	}
	if choice == ChoosePrimary {
		return Route{Primary, why}
	}
	if starts {
		r, sure := startRoute(turn, s.now)
		if r.Target == Primary && (sure || choice != ChooseStandby) || r.Target == Standby && worst.proof == proofStart {
			return r
		}
	}
	if worst.proof > proofRead && choice == ChooseStandby {
		return Route{Standby, why}
	}
	return worst.Route
}

// level is the verdict's proof; a Verdict that somebody else made proves nothing.
func (v *Verdict) level() proof {
	if v.proof == proofUnread {
		return proofWrite
	}
	return v.proof
}

// changesReading says whether the text changes how later texts of its turn are to be read, which
// were classified before it was executed.
func (v *Verdict) changesReading() bool {
	for i := range v.Effects {
		switch e := &v.Effects[i]; e.Kind {
		case EffectSet, EffectReset:
			if e.Name == "standard_conforming_strings" || e.Name == "client_encoding" {
				return true
			}
		case EffectResetAll, EffectDiscardAll:
			return true
		}
	}
	return false
}

// chosen is what cstproxy.route or else the rules say of the turn. A rule on tables sends the turn
// to the primary when it holds for one text, to a standby when it holds for all of them.
func (s *Session) chosen(turn []*Verdict) (RouteChoice, string) {
	if s.now.choice != ChooseAuto {
		return s.now.choice, WhyRouteSetting
	}
	standby := 0
	for _, v := range turn {
		switch v.rule {
		case ChoosePrimary:
			return ChoosePrimary, WhyRule
		case ChooseStandby:
			standby++
		}
	}
	if standby == len(turn) {
		return ChooseStandby, WhyRule
	}
	return s.cfg.Rule, WhyRule
}

// startRoute judges the transactions that a turn starts: Standby when all of them are read only
// and none is serializable, which a standby refuses. sure is false when the answer is Primary only
// because a BEGIN did not say its mode.
func startRoute(turn []*Verdict, d defaults) (r Route, sure bool) {
	inTx, ro, ser, wrote, sawStart := false, d.readOnly, d.serializable, false, false
	apply := func(m Modes) {
		if m&(ModeReadOnly|ModeReadWrite) != 0 {
			ro = m&ModeReadOnly != 0
			wrote = wrote || m&ModeReadWrite != 0
		}
		switch {
		case m&ModeSerializable != 0:
			ser = true
		case m&(ModeRepeatableRead|ModeReadCommitted) != 0:
			ser = false
		}
	}
	for _, v := range turn {
		for i := range v.Effects {
			e := &v.Effects[i]
			switch e.Kind {
			case EffectBegin:
				inTx, sawStart, ro, ser = true, true, d.readOnly, d.serializable
				apply(e.Modes)
			case EffectSetTransaction:
				if e.Modes&ModeSnapshot != 0 {
					return Route{Primary, whySnapshot}, true
				}
				sawStart = true
				apply(e.Modes)
			case EffectCommit, EffectRollback, EffectPrepareTransaction:
				if inTx && !ro {
					return Route{Primary, whyBegin}, wrote
				}
				if e.Modes&ModeChain == 0 {
					inTx, ro, ser = false, d.readOnly, d.serializable
				}
			case EffectSet:
				d.set(e.Name, e.Value)
			case EffectReset, EffectResetAll, EffectDiscardAll:
				d.readOnly = false // nearly never in one turn with BEGIN: the primary is always right
			}
			if ser {
				return Route{Primary, WhySerializable}, true
			}
			if wrote {
				return Route{Primary, whyReadWrite}, true
			}
		}
	}
	switch {
	case inTx && !ro:
		return Route{Primary, whyBegin}, false
	case sawStart:
		return Route{Standby, whyReadOnly}, true
	}
	return Route{Standby, whySetting}, true
}
