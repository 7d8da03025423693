package auth

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// key is one of SCRAM's derived keys.
type key [keyBytes]byte

// Verifier is what a server knows of a role's password: enough to check a proof, not enough to
// make one. Immutable. Its secrets are not exported, so that no formatter prints them.
type Verifier struct {
	// User is the role.
	User string
	// ValidUntil is when the password expires; zero is never.
	ValidUntil time.Time
	// CanLogin is rolcanlogin. PostgreSQL checks it after the password (28000), and a proxy has
	// to do the same, because a pooled connection would let the role in.
	CanLogin bool

	salt       []byte
	iterations int
	stored     key
	server     key
	doomed     bool // no proof will do: a mock, an md5 hash, or no password at all
}

var errVerifierForm = errors.New("want SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")

// ParseVerifier reads a pg_authid.rolpassword of the form
// SCRAM-SHA-256$4096:salt$StoredKey:ServerKey (salt and keys in base64). The caller fills in User,
// ValidUntil and CanLogin. The error never quotes the input.
func ParseVerifier(rolpassword string) (*Verifier, error) {
	v, err := parseVerifier(rolpassword)
	if err != nil {
		return nil, fmt.Errorf("parse SCRAM verifier: %w", err)
	}
	return v, nil
}

func parseVerifier(s string) (*Verifier, error) {
	rest, ok := strings.CutPrefix(s, Mechanism+"$")
	if !ok {
		return nil, errVerifierForm
	}
	head, keys, ok := strings.Cut(rest, "$")
	if !ok {
		return nil, errVerifierForm
	}
	count, salt64, ok1 := strings.Cut(head, ":")
	stored64, server64, ok2 := strings.Cut(keys, ":")
	if !ok1 || !ok2 {
		return nil, errVerifierForm
	}
	n, err := strconv.ParseInt(count, 10, 32)
	if err != nil || n < 1 {
		return nil, errors.New("the iteration count is not a positive number")
	}
	v := &Verifier{iterations: int(n), CanLogin: true}
	if v.salt, err = base64.StdEncoding.Strict().DecodeString(salt64); err != nil || len(v.salt) == 0 {
		return nil, errors.New("the salt is not base64")
	}
	if len(v.salt) > maxSalt {
		return nil, errors.New("the salt is too long")
	}
	if !decodeKey(&v.stored, stored64) || !decodeKey(&v.server, server64) {
		return nil, errors.New("a key is not 32 bytes of base64")
	}
	return v, nil
}

// maxSalt keeps server-first below MaxMessage; PostgreSQL's salts have 16 bytes.
const maxSalt = 256

func decodeKey(k *key, s string) bool {
	if len(s) != base64.StdEncoding.EncodedLen(keyBytes) {
		return false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil && copy(k[:], b) == keyBytes && len(b) == keyBytes
}

// MakeVerifier derives a verifier from a password as PostgreSQL's CREATE ROLE does. It iterates the
// hash (milliseconds): never on an event loop.
func MakeVerifier(user, password string) *Verifier {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails (crypto/rand)
	return deriveVerifier(user, password, salt)
}

func deriveVerifier(user, password string, salt []byte) *Verifier {
	keys := deriveKeys(password, salt, DefaultIterations)
	return &Verifier{User: user, CanLogin: true, salt: salt, iterations: DefaultIterations,
		stored: keys.stored, server: keys.server}
}

// Mock returns a verifier for a user that does not exist or has no SCRAM password: the exchange
// looks like any other and ends in ErrRefused. The salt depends on the secret and the user alone,
// so asking twice, or asking another member with the same secret, tells nothing.
func Mock(secret []byte, user string) *Verifier {
	v := &Verifier{User: user, CanLogin: true, iterations: DefaultIterations, doomed: true}
	v.salt = mac(secret, "cstproxy mock salt", user)[:16]
	copy(v.stored[:], mac(secret, "cstproxy mock key", user))
	return v
}

// MockLike is Mock for a server whose roles look like v: with scram_iterations (PostgreSQL 16)
// another count than the usual one would give the mock away.
func MockLike(v *Verifier, secret []byte, user string) *Verifier {
	m := Mock(secret, user)
	m.iterations = v.iterations
	return m
}

// Mocked says whether no proof can ever satisfy the verifier.
func (v *Verifier) Mocked() bool { return v.doomed }

// Expired says whether VALID UNTIL has passed.
func (v *Verifier) Expired(now time.Time) bool {
	return !v.ValidUntil.IsZero() && v.ValidUntil.Before(now)
}

// Equal says whether two verifiers hold the same password, salted alike.
func (v *Verifier) Equal(w *Verifier) bool {
	return v.doomed == w.doomed && v.iterations == w.iterations && string(v.salt) == string(w.salt) &&
		subtle.ConstantTimeCompare(v.stored[:], w.stored[:]) == 1
}

// String hides the secrets.
func (v Verifier) String() string { return "verifier of " + v.User }

// GoString hides the secrets from %#v.
func (v Verifier) GoString() string { return v.String() }

// Keys are what a successful exchange leaves behind: with them the proxy logs in as the user on
// every node that has the same verifier, without the password and without iterating. Immutable.
type Keys struct {
	client, stored, server key
}

// Fit says whether the keys still belong to the verifier: a changed password makes them useless.
func (k *Keys) Fit(v *Verifier) bool {
	return !v.doomed && subtle.ConstantTimeCompare(k.stored[:], v.stored[:]) == 1
}

// String hides the secrets.
func (k Keys) String() string { return "SCRAM keys" }

// GoString hides the secrets from %#v.
func (k Keys) GoString() string { return k.String() }

// deriveKeys computes SaltedPassword and what follows from it (RFC 5802 section 3).
func deriveKeys(password string, salt []byte, iterations int) *Keys {
	salted, err := pbkdf2.Key(sha256.New, Prepare(password), salt, iterations, keyBytes)
	if err != nil {
		// Only a key length out of range or a FIPS-only build can cause it; zero keys log in nowhere.
		return &Keys{}
	}
	k := &Keys{}
	copy(k.client[:], mac(salted, "Client Key"))
	k.stored = sha256.Sum256(k.client[:])
	copy(k.server[:], mac(salted, "Server Key"))
	return k
}

// mac is HMAC-SHA-256 over the concatenated parts.
func mac(secret []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, secret)
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}
