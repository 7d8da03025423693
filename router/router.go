// Package router decides where a turn goes: to the primary, to a standby, or to the server that
// the session holds. It lexes SQL by PostgreSQL's rules, classifies each statement as a proven
// read or not, follows a session's transaction and pins, and says why. It is pure: no I/O, no
// clock, no goroutine, and it imports nothing of ours. What it promises: a turn that it calls a
// read contains no write; when in doubt the answer is Primary.
package router

// Target is the kind of server a turn needs.
type Target int

const (
	Primary Target = iota // may write, or we cannot prove that it does not
	Standby               // reads only, and no earlier write of its transaction can matter
	Pinned                // whatever server the session already holds
)

func (t Target) String() string {
	switch t {
	case Standby:
		return "standby"
	case Pinned:
		return "pinned"
	}
	return "primary"
}

// Route is the answer for one turn. Why is a constant phrase ("select", "for update",
// "volatile function", "in transaction") for logs, SHOW and `cstproxy explain`.
type Route struct {
	Target Target
	Why    string
}
