package proxy

import (
	"errors"
	"fmt"
	"time"

	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

// refusal is an error that the proxy itself tells a client. This file is the only place that
// chooses SQLSTATEs; docs/errors.md lists them.
type refusal struct {
	severity string
	code     string
	message  string
	detail   string
	hint     string
}

func (r *refusal) Error() string { return r.message + " (SQLSTATE " + r.code + ")" }

const (
	severityError = "ERROR"
	severityFatal = "FATAL"
)

// append writes the refusal as an ErrorResponse.
func (r *refusal) append(dst []byte) []byte { return sayError(dst, r) }

func protocolViolation(message string) *refusal {
	return &refusal{severity: severityFatal, code: "08P01", message: message}
}

func unsupportedProtocol(version uint32) *refusal {
	return &refusal{severity: severityFatal, code: "0A000",
		message: fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.0 to 3.2", version>>16, version&0xffff)}
}

func noUserName() *refusal {
	return &refusal{severity: severityFatal, code: "28000", message: "no PostgreSQL user name specified in startup packet"}
}

func badOptions(err error) *refusal {
	return &refusal{severity: severityFatal, code: "22023", message: err.Error()}
}

func noReplication() *refusal {
	return &refusal{severity: severityFatal, code: "0A000", message: "replication connections cannot go through cstproxy",
		hint: "Connect to the PostgreSQL server itself."}
}

func tlsRequired() *refusal {
	return &refusal{severity: severityFatal, code: "28000", message: "this listener requires an encrypted connection",
		hint: "Connect with sslmode=require or stronger."}
}

func noRule(user, database, address string, how string) *refusal {
	return &refusal{severity: severityFatal, code: "28000",
		message: fmt.Sprintf("no hba rule lets host %q, user %q, database %q, %s in", address, user, database, how),
		hint:    "Rules are the [[hba]] entries of cstproxy's configuration, first match wins."}
}

func ruleRejects(user, database, address string, how string) *refusal {
	return &refusal{severity: severityFatal, code: "28000",
		message: fmt.Sprintf("an hba rule rejects host %q, user %q, database %q, %s", address, user, database, how)}
}

func wrongPassword(user string) *refusal {
	return &refusal{severity: severityFatal, code: "28P01", message: fmt.Sprintf("password authentication failed for user %q", user)}
}

func badSASL(err error) *refusal {
	return &refusal{severity: severityFatal, code: "08P01", message: "malformed SCRAM message: " + err.Error()}
}

func lookupDown() *refusal {
	return &refusal{severity: severityFatal, code: "57P03", message: "cannot look up the password verifier now: no server answers",
		hint: "Try again; cstproxy's log names the reason."}
}

func loginTimeout() *refusal {
	return &refusal{severity: severityFatal, code: "57014", message: "canceling authentication due to timeout"}
}

func tooManyClients(limit int) *refusal {
	return &refusal{severity: severityFatal, code: "53300", message: "sorry, too many clients already",
		detail: fmt.Sprintf("cstproxy admits max_clients = %d connections.", limit)}
}

func shuttingDown() *refusal {
	return &refusal{severity: severityFatal, code: "57P01", message: "terminating connection: cstproxy is shutting down"}
}

func idleTooLong() *refusal {
	return &refusal{severity: severityFatal, code: "57P05", message: "terminating connection due to idle-session timeout"}
}

func idleInTransaction() *refusal {
	return &refusal{severity: severityFatal, code: "25P03", message: "terminating connection due to idle-in-transaction timeout"}
}

func waitedTooLong(lasted time.Duration) *refusal {
	return &refusal{severity: severityError, code: "53300",
		message: fmt.Sprintf("no server connection became free within %s", lasted),
		hint:    "Raise pool_size, or look for long transactions; cstproxy ctl stats lists the pools."}
}

func queueFull() *refusal {
	return &refusal{severity: severityError, code: "53300", message: "too many clients wait for a server connection",
		hint: "Raise pool_size or max_waiting."}
}

func whyNoPrimary(why string) string {
	if why == "" {
		why = "it does not answer"
	}
	return "the cluster has no primary now: " + why
}

// notHeldLonger and holdFull end the wait of a request that has had no effect.
func notHeldLonger(why string, waited time.Duration) *refusal {
	return &refusal{severity: severityError, code: "57P03", message: why,
		detail: fmt.Sprintf("Waited %s (hold_writes).", waited),
		hint:   "Nothing of it took effect: try again."}
}

func holdFull(why string) *refusal {
	return &refusal{severity: severityError, code: "57P03", message: why,
		detail: "Too many requests wait already (max_waiting, hold_bytes).",
		hint:   "Nothing of it took effect: try again."}
}

func noStandby() *refusal {
	return &refusal{severity: severityError, code: "57P03", message: "no standby takes reads now",
		hint: "This listener serves reads from standbys only."}
}

func cancelled() *refusal {
	return &refusal{severity: severityError, code: "57014", message: "canceling statement due to user request"}
}

func serverUnreachable() *refusal {
	return &refusal{severity: severityError, code: "08006", message: "the server that this query needs cannot be reached"}
}

func outcomeUnknown(why loss) *refusal {
	return &refusal{severity: severityError, code: "08007",
		message: [...]string{
			serverGone:      "the server was lost before it answered",
			primaryReplaced: "the primary was replaced before its answer could be passed on",
			leaseOver:       "the primary's answer could not be passed on in time",
		}[why] + ": it is not known whether the statement took effect",
		hint: "Check the data before you repeat it."}
}

func transactionLost(why loss) *refusal {
	return &refusal{severity: severityError, code: "40001",
		message: [...]string{
			serverGone:      "the server was lost and the transaction with it",
			primaryReplaced: "the primary was replaced and the transaction with it",
			leaseOver:       "the primary could not be used in time and the transaction was given up",
		}[why],
		hint: "The transaction was rolled back. Repeat it from its beginning."}
}

func inLostTransaction() *refusal {
	return &refusal{severity: severityError, code: "25P02",
		message: "current transaction is aborted, commands ignored until end of transaction block"}
}

func pinLost(reason string) *refusal {
	return &refusal{severity: severityFatal, code: "57P01",
		message: "the server was lost that held this session's state (" + reason + ")",
		hint:    "Connect again and set the state up anew."}
}

func stateRefused(message string) *refusal {
	return &refusal{severity: severityFatal, code: "08006",
		message: "a server refused this session's settings: " + message}
}

func badRoute(value string) *refusal {
	return &refusal{severity: severityError, code: "22023", message: fmt.Sprintf("invalid value for parameter %q: %q", routeParameter, value),
		hint: "Available values: auto, primary, standby."}
}

// planChanged is PostgreSQL's own error for the case.
func planChanged() *refusal {
	return &refusal{severity: severityError, code: "0A000", message: planMessage}
}

func mayNotLogIn(user string) *refusal {
	return &refusal{severity: severityFatal, code: "28000", message: fmt.Sprintf("role %q is not permitted to log in", user)}
}

func noCredential() *refusal {
	return &refusal{severity: severityError, code: "28000", message: "cstproxy has no credential for this user on the servers",
		hint: "Let the user log in with scram-sha-256, or name the password in cstproxy's password_file."}
}

// serverSaid is a server's error as one of ours: the same words.
func serverSaid(body []byte) *refusal {
	return &refusal{severity: severityError, code: string(wire.ErrorField(body, 'C')), message: string(wire.ErrorField(body, 'M')),
		detail: string(wire.ErrorField(body, 'D')), hint: string(wire.ErrorField(body, 'H'))}
}

// refusalFor turns what a pool or a dial said into what the client reads. Anything unforeseen is
// an internal error: its text may hold what a client must not know.
func refusalFor(err error) *refusal {
	var r *refusal
	var node *backend.NodeError
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, backend.ErrQueueFull):
		return queueFull()
	case errors.Is(err, backend.ErrNoCredential):
		return noCredential()
	case errors.As(err, &node):
		return serverUnreachable()
	}
	return &refusal{severity: severityError, code: "XX000", message: "internal error"}
}
