package remote

import (
	"errors"
	"fmt"
	"time"
)

// ErrNoWrapper is returned by Do where Install has never been.
var ErrNoWrapper = errors.New("the host is not prepared for commands; run: cstproxy ctl init")

// Refused is the ratchet's answer to a token below the highest that it has seen: a newer decision
// has been there. The command did not run, or was ended in its middle by that newer one.
type Refused struct {
	Host        string
	Asked, Seen Token
}

func (e *Refused) Error() string {
	return fmt.Sprintf("%s refuses epoch %d step %d: it has seen epoch %d step %d",
		e.Host, e.Asked.Epoch, e.Asked.Step, e.Seen.Epoch, e.Seen.Step)
}

// Unreachable says that there is no connection to the host, or that there was none any more before
// the command's end was known.
type Unreachable struct {
	Host string
	// Since is how long the host has been out of reach.
	Since time.Duration
	// Sent: the command was under way, and may have run, run in part, or run still.
	Sent bool
	Err  error

	link *link // the connection that was lost
}

func (e *Unreachable) Error() string {
	if e.Sent {
		return fmt.Sprintf("lost %s while the command ran, its outcome is unknown: %v", e.Host, e.Err)
	}
	return fmt.Sprintf("cannot reach %s: %v", e.Host, e.Err)
}

func (e *Unreachable) Unwrap() error { return e.Err }

// HostKey says that the host did not prove to be the one that known_hosts names.
type HostKey struct {
	Host string
	// Fingerprint is of the key that it showed, empty when it was not asked for one.
	Fingerprint string
	// Changed: known_hosts has another key for it. Otherwise it has none.
	Changed bool
	// Remedy is what to run, on this machine, once the fingerprint has been compared.
	Remedy string
	Err    error
}

func (e *HostKey) Error() string {
	if e.Changed {
		return fmt.Sprintf("the key of %s is not the one in known_hosts (it shows %s): somebody may stand in between, "+
			"or the host was set up anew; if so: %s", e.Host, e.Fingerprint, e.Remedy)
	}
	return fmt.Sprintf("the key of %s is not in known_hosts; compare its fingerprint, then: %s", e.Host, e.Remedy)
}

func (e *HostKey) Unwrap() error { return e.Err }

// Auth says that the host does not let us in, or that there is no usable key to ask with.
type Auth struct {
	Host, User string
	Err        error
}

func (e *Auth) Error() string {
	return fmt.Sprintf("cannot log in to %s as %s: %v", e.Host, e.User, e.Err)
}

func (e *Auth) Unwrap() error { return e.Err }

// ExitError says that the command ran to its end and failed.
type ExitError struct {
	// Code is its exit status, 128 + the number of the signal that ended it.
	Code int
	// Stderr is the end of what it wrote there.
	Stderr string
}

func (e *ExitError) Error() string {
	if e.Stderr == "" {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return fmt.Sprintf("exit status %d: %s", e.Code, e.Stderr)
}

// Busy says that a command of the same token, or one of a lower token that does not end, was in the
// way for as long as the call had time. The command did not run.
type Busy struct{ Host, Why string }

func (e *Busy) Error() string { return fmt.Sprintf("%s is busy: %s", e.Host, e.Why) }

// Broken says that the ratchet of the host cannot do its work: a full or read-only disk, a file that
// is not its own. The command did not run.
type Broken struct{ Host, Why string }

func (e *Broken) Error() string {
	return fmt.Sprintf("the ratchet on %s does not work, so nothing was done: %s", e.Host, e.Why)
}
