package router

// Verdict is what the classifier says of one text: the string of one simple Query, or of one
// Parse. It is immutable and shared: many sessions hold the same Verdict.
type Verdict struct {
	// Route is where the text goes when nothing is known of the session that sends it: Standby
	// only when every statement is positively a read. Session.Route has the last word.
	Route Route
	// Statements is how many statements the text has; 0 is an empty query.
	Statements int
	// Effects is what the text does to the session if it succeeds, in order; nil for plain reads
	// and writes.
	Effects []Effect
	// Retry says whether the text may be run a second time when its first run was cut short.
	Retry RetryClass
	// Copy says which COPY data the text exchanges with the client.
	Copy CopyFlags
	// UnknownName is set when a function or relation is named that Env.Knowledge does not have:
	// the catalogue has probably changed and should be read again soon.
	UnknownName bool

	proof  proof
	hinted bool        // every statement carries a standby hint
	rule   RouteChoice // what a table rule says, if one matched
}

// NeedsNoNode says that the text only reads or changes settings of the session, or is empty: any
// node can answer it, and the answer is the same everywhere.
func (v *Verdict) NeedsNoNode() bool { return v.proof == proofNeutral }

// RetryClass says whether a text may be run again.
type RetryClass int

const (
	// RetryNever: it may have acted, or it acts on a transaction or session.
	RetryNever RetryClass = iota
	// RetryRefused: it may be run on the primary after a standby refused it (25006, 0A000, 55000,
	// 42P01 …), because all that it did was rolled back; but not after its server was lost.
	RetryRefused
	// RetrySafe: a pure read, or a change of tracked settings alone. It may be run again anywhere.
	RetrySafe
)

// CopyFlags is a set of COPY directions.
type CopyFlags uint8

const (
	// CopyIn: the server will ask the client for data (COPY … FROM STDIN).
	CopyIn CopyFlags = 1 << iota
	// CopyOut: the server will send data (COPY … TO STDOUT).
	CopyOut
)

// EffectKind is the kind of an Effect. The zero kind has no effect.
type EffectKind int

const (
	EffectNone EffectKind = iota
	// EffectBegin starts a transaction; Modes has what was written.
	EffectBegin
	// EffectCommit ends a transaction; with ModeChain the next one starts at once.
	EffectCommit
	// EffectRollback ends a transaction; with ModeChain the next one starts at once.
	EffectRollback
	// EffectSavepoint, EffectRollbackTo and EffectRelease carry the savepoint's folded name.
	EffectSavepoint
	EffectRollbackTo
	EffectRelease
	// EffectPrepareTransaction ends the transaction on this connection; its SETs stay.
	EffectPrepareTransaction
	// EffectSetTransaction changes the running transaction; Modes has what was written.
	EffectSetTransaction
	// EffectSet sets a tracked parameter: Name is canonical lower case, Value the SQL text that
	// stood after TO or =, as the client wrote it, so that "SET name TO value" repeats it. Its
	// bytes are in the client encoding of that moment.
	EffectSet
	// EffectSetLocal is SET LOCAL of any parameter; it ends with the transaction.
	EffectSetLocal
	// EffectReset sets a tracked parameter back to what the session started with.
	EffectReset
	// EffectResetAll is RESET ALL.
	EffectResetAll
	// EffectDiscardAll is DISCARD ALL.
	EffectDiscardAll
	// EffectDiscard is DISCARD PLANS, SEQUENCES or TEMP (Name, lower case).
	EffectDiscard
	// EffectDeallocate drops the prepared statement Name (folded unless it was quoted).
	EffectDeallocate
	// EffectDeallocateAll drops all prepared statements, those of the protocol included.
	EffectDeallocateAll
	// EffectPin ties the session to its server. Name is one of the Pin… reasons; Value is what it
	// is about (a parameter, a channel, a lock's arguments), "" when that is not known.
	EffectPin
	// EffectUnpin ends the pins of reason Name; with a Value only the one that is about it.
	EffectUnpin
	// EffectDDL says that the catalogue may have changed.
	EffectDDL
	// EffectRoute is SET cstproxy.route (Value "primary", "standby", "auto") or its RESET
	// (Value ""): the proxy answers it, no server knows the parameter.
	EffectRoute
	// EffectShowRoute is SHOW cstproxy.route, which the proxy answers, too.
	EffectShowRoute
)

// Modes is a set of transaction modes as written after BEGIN or SET TRANSACTION.
type Modes uint16

const (
	ModeReadOnly Modes = 1 << iota
	ModeReadWrite
	ModeSerializable
	ModeRepeatableRead
	ModeReadCommitted // also read uncommitted, which PostgreSQL treats alike
	ModeDeferrable
	ModeNotDeferrable
	// ModeSnapshot is SET TRANSACTION SNAPSHOT: the snapshot exists on one node only.
	ModeSnapshot
	// ModeChain is AND CHAIN after COMMIT or ROLLBACK.
	ModeChain
)

// Effect is one change that a statement makes to the session when it succeeds.
type Effect struct {
	Kind  EffectKind
	Modes Modes
	Name  string
	Value string
}

// RouteChoice is what a hint, the setting cstproxy.route or a rule asks for.
type RouteChoice int

const (
	// ChooseAuto: the classifier decides.
	ChooseAuto RouteChoice = iota
	// ChoosePrimary: the primary, even for reads.
	ChoosePrimary
	// ChooseStandby: a standby, unless the statement is known to write. It answers doubts (an
	// unknown or volatile function), it does not send an INSERT to a standby.
	ChooseStandby
)

func (r RouteChoice) String() string {
	switch r {
	case ChoosePrimary:
		return "primary"
	case ChooseStandby:
		return "standby"
	}
	return "auto"
}

// ParseRouteChoice reads "primary", "standby" or "auto", in any case.
func ParseRouteChoice(s string) (RouteChoice, bool) {
	switch foldString(s) {
	case "primary":
		return ChoosePrimary, true
	case "standby":
		return ChooseStandby, true
	case "auto":
		return ChooseAuto, true
	}
	return ChooseAuto, false
}

// proof is how sure it is that a text only reads. Higher is less; a text has the highest of its
// statements.
type proof uint8

const (
	proofUnread  proof = iota // not classified; never left in a Verdict
	proofNeutral              // settings of the session, or nothing at all
	proofRead                 // a positive proof that it reads
	proofStart                // starts a transaction; its modes and the session's defaults decide
	proofDoubt                // may write: a hint can overrule it
	proofLocal                // its answer depends on the node or the server connection
	proofWrite                // writes, or cannot be read as SQL, or a hint says primary
)
