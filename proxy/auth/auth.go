// Package auth proves who a client is and who the proxy is, without I/O: SCRAM-SHA-256 on both
// sides (RFC 5802 and 7677 as PostgreSQL speaks them), the verifiers of pg_authid, and rules with
// the meaning of pg_hba.conf. The proxy never needs an application's password: the ClientKey that a
// client's proof reveals logs in to every node of the cluster, because physical standbys share the
// verifier. Nothing here picks an SQLSTATE or writes a log line; callers branch on the errors below.
package auth

import "errors"

// What a login can end with. Texts after the sentinel are details for logs and for the client's
// DETAIL; they hold no secret.
var (
	// ErrMalformed is a SASL message that breaks the grammar (08P01, "malformed SCRAM message").
	ErrMalformed = errors.New("malformed SCRAM message")
	// ErrUnsupported is an extension or an authorization identity (0A000).
	ErrUnsupported = errors.New("unsupported SCRAM request")
	// ErrBadResponse is a final message that answers another challenge (08P01, "invalid SCRAM response").
	ErrBadResponse = errors.New("invalid SCRAM response")
	// ErrRefused is a wrong password, an expired one, an unknown user, or a role without a SCRAM
	// verifier: the same error for all, so that nobody learns which (28P01).
	ErrRefused = errors.New("password authentication failed")
	// ErrServer is what the client side says of a server that breaks the exchange or cannot
	// prove that it knows the verifier.
	ErrServer = errors.New("server failed SCRAM authentication")
)

const (
	// Mechanism is the SASL name of what this package speaks.
	Mechanism = "SCRAM-SHA-256"
	// MaxMessage is the longest SASL message that either side accepts, in bytes; PostgreSQL's
	// own bound (PG_MAX_SASL_MESSAGE_LENGTH in libpq/sasl.h).
	MaxMessage = 1024
	// nonceBytes is the entropy of a nonce before base64 (SCRAM_RAW_NONCE_LEN).
	nonceBytes = 18
	// keyBytes is the length of a SHA-256 key.
	keyBytes = 32
	// DefaultIterations is PostgreSQL's iteration count unless scram_iterations says otherwise
	// (SCRAM_SHA_256_DEFAULT_ITERATIONS).
	DefaultIterations = 4096
	// MaxIterations bounds the work that a server may ask of the password side: about two
	// seconds of one core. RFC 7677 asks for at least 4096, OWASP recommends 600,000.
	MaxIterations = 5_000_000
)
