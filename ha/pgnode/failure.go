package pgnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Cause is the kind of a Failure: what it says about the server's life.
type Cause int

const (
	Unclassified Cause = iota // counts against the server like silence
	Refused                   // the host answers, nothing listens there (RST): the process is gone
	Reset                     // the connection was cut: the process is probably gone
	Silent                    // no answer in time
	Unreachable               // no route, host or network unreachable, name not found
	Starting                  // 57P03: starting up, shutting down, or in recovery without hot standby
	Denied                    // the server is alive, but does not let this user in or does not answer it
	Full                      // 53300: alive and out of connections; this is load, not death
	Hung                      // its host takes connections, or it gave up a question itself (57014), and no answer comes
)

var causeNames = [...]string{"unclassified", "refused", "reset", "silent", "unreachable", "starting", "denied", "full", "hung"}

func (c Cause) String() string {
	if c < 0 || int(c) >= len(causeNames) {
		return causeNames[Unclassified]
	}
	return causeNames[c]
}

// Alive says whether a server process that is not ending must have given this answer.
func (c Cause) Alive() bool { return c == Starting || c == Denied || c == Full }

// AtOnce says whether the failure is so definite that it is checked again at once instead of at
// the next probe.
func (c Cause) AtOnce() bool { return c == Refused || c == Reset }

// Failure is why a server gave no observation. Message is a short phrase for people, without the
// address and without secrets.
type Failure struct {
	Cause   Cause
	Message string
	err     error
}

func (f *Failure) Error() string { return f.Message }
func (f *Failure) Unwrap() error { return f.err }

// CauseOf finds the Failure in err.
func CauseOf(err error) Cause {
	var f *Failure
	if errors.As(err, &f) {
		return f.Cause
	}
	return Unclassified
}

func classify(err error, timeout time.Duration) *Failure {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return &Failure{Cause: causeOfState(pg.Code), Message: pg.Message, err: err}
	}
	var dns *net.DNSError
	var netErr net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Failure{Cause: Refused, Message: "connection refused", err: err}
	case errors.As(err, &dns) && !dns.IsTimeout:
		return &Failure{Cause: Unreachable, Message: "host name not found", err: err}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return &Failure{Cause: Silent, Message: fmt.Sprintf("no answer within %s", timeout), err: err}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return &Failure{Cause: Unreachable, Message: "host unreachable", err: err}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return &Failure{Cause: Reset, Message: "connection reset", err: err}
	}
	return &Failure{Cause: Unclassified, Message: firstLine(err.Error()), err: err}
}

// causeOfState sorts an SQLSTATE (PostgreSQL, appendix A). 57P01 and 57P02 end a connection whose
// server goes down; an operator's pg_terminate_backend looks the same, which the probe that
// follows at once tells apart.
func causeOfState(code string) Cause {
	switch code {
	case "57P03":
		return Starting
	case "53300":
		return Full
	case "57P01", "57P02":
		return Reset
	case "57014":
		return Hung
	}
	switch {
	case strings.HasPrefix(code, "28"), code == "3D000", code == "42501", code == "42883", code == "42703":
		return Denied
	}
	return Unclassified
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
