package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// ScramServer is the proxy's side of one login: First, then Final, each once, in this order. It
// costs three HMACs and no key iteration, so it may run on the event loop. One goroutine at a time.
type ScramServer struct {
	v       *Verifier
	doomed  bool
	nonce   string // ours
	phase   serverPhase
	binding string // what c= has to be
	bare    string // client-first-message-bare
	first   string // server-first-message
	full    string // both nonces
}

type serverPhase int

const (
	awaitFirst serverPhase = iota
	awaitFinal
	serverDone
)

// NewScramServer prepares the exchange for one login with a verifier, or with a Mock for a user
// that does not exist. A password that has expired by now fails like a wrong one, at the end of
// the exchange, as in PostgreSQL.
func NewScramServer(v *Verifier, now time.Time) *ScramServer {
	return &ScramServer{v: v, doomed: v.doomed || v.Expired(now), nonce: newNonce()}
}

// First takes the client-first-message and returns the server-first-message, the data of
// AuthenticationSASLContinue. Errors: ErrMalformed, ErrUnsupported.
func (s *ScramServer) First(clientFirst []byte) ([]byte, error) {
	if s.phase != awaitFirst {
		return nil, fmt.Errorf("%w: a second first message", ErrMalformed)
	}
	s.phase = serverDone
	clientNonce, err := s.parseFirst(clientFirst)
	if err != nil {
		return nil, err
	}
	s.full = string(clientNonce) + s.nonce
	s.first = "r=" + s.full + ",s=" + base64.StdEncoding.EncodeToString(s.v.salt) +
		",i=" + strconv.Itoa(s.v.iterations)
	s.phase = awaitFinal
	return []byte(s.first), nil
}

// parseFirst reads gs2-header and client-first-message-bare (RFC 5802 section 7). The user name in
// it is ignored, as PostgreSQL does: the start-up packet has named the user.
func (s *ScramServer) parseFirst(msg []byte) (nonce []byte, err error) {
	if err := checkSize(msg); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(msg) < 3 || msg[1] != ',' {
		return nil, fmt.Errorf("%w: no channel-binding flag", ErrMalformed)
	}
	switch msg[0] {
	case 'n':
		s.binding = "biws" // base64("n,,")
	case 'y': // could bind, believes that we cannot: right, -PLUS is not offered
		s.binding = "eSws" // base64("y,,")
	default:
		return nil, fmt.Errorf("%w: channel binding was not offered", ErrMalformed)
	}
	switch msg[2] {
	case ',':
	case 'a':
		return nil, fmt.Errorf("%w: an authorization identity", ErrUnsupported)
	default:
		return nil, fmt.Errorf("%w: unexpected attribute %q in the first message", ErrMalformed, string(msg[2]))
	}
	bare := msg[3:]
	if len(bare) > 0 && bare[0] == 'm' {
		return nil, fmt.Errorf("%w: a mandatory extension", ErrUnsupported)
	}
	s.bare = string(bare)
	_, rest, err := attribute(bare, 'n')
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	nonce, rest, err = attribute(rest, 'r')
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !printable(nonce) {
		return nil, fmt.Errorf("%w: unprintable characters in the nonce", ErrMalformed)
	}
	for len(rest) > 0 { // extensions, ignored
		if _, _, rest, err = anyAttribute(rest); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	return nonce, nil
}

// Final takes the client-final-message. On success it returns the server-final-message, the data
// of AuthenticationSASLFinal, and the keys that the proof revealed. Errors: ErrMalformed,
// ErrBadResponse, ErrRefused.
func (s *ScramServer) Final(clientFinal []byte) (serverFinal []byte, keys *Keys, err error) {
	if s.phase != awaitFinal {
		return nil, nil, fmt.Errorf("%w: a final message out of turn", ErrMalformed)
	}
	s.phase = serverDone
	withoutProof, proof, err := s.parseFinal(clientFinal)
	if err != nil {
		return nil, nil, err
	}
	authMessage := s.bare + "," + s.first + "," + string(withoutProof)
	keys = &Keys{stored: s.v.stored, server: s.v.server}
	xor(&keys.client, proof[:], mac(s.v.stored[:], authMessage))
	computed := sha256.Sum256(keys.client[:])
	// Both are looked at only after the whole computation: a mock takes as long as a real one.
	match := subtle.ConstantTimeCompare(computed[:], s.v.stored[:])
	if match != 1 || s.doomed {
		return nil, nil, ErrRefused
	}
	signature := mac(s.v.server[:], authMessage)
	return []byte("v=" + base64.StdEncoding.EncodeToString(signature)), keys, nil
}

func (s *ScramServer) parseFinal(msg []byte) (withoutProof []byte, proof key, err error) {
	if err := checkSize(msg); err != nil {
		return nil, proof, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	binding, rest, err := attribute(msg, 'c')
	if err != nil {
		return nil, proof, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if string(binding) != s.binding {
		return nil, proof, fmt.Errorf("%w: the channel-binding attribute is not what the first message said", ErrMalformed)
	}
	nonce, rest, err := attribute(rest, 'r')
	if err != nil {
		return nil, proof, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	// Extensions may come before the proof; the proof is last.
	var name byte
	var value []byte
	for name != 'p' {
		if name, value, rest, err = anyAttribute(rest); err != nil {
			return nil, proof, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	if len(rest) > 0 {
		return nil, proof, fmt.Errorf("%w: data after the proof", ErrMalformed)
	}
	if !decodeKey(&proof, string(value)) {
		return nil, proof, fmt.Errorf("%w: the proof is not 32 bytes of base64", ErrMalformed)
	}
	if !hmac.Equal(nonce, []byte(s.full)) {
		return nil, proof, fmt.Errorf("%w: the nonce does not match", ErrBadResponse)
	}
	return msg[:len(msg)-len(value)-len(",p=")], proof, nil
}

// Malformed says whether an error is about the form of the messages, as opposed to the password.
func Malformed(err error) bool {
	return errors.Is(err, ErrMalformed) || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrBadResponse)
}
