package auth

import (
	"bytes"
	"crypto/hmac"
	"encoding/base64"
	"fmt"
	"strconv"
)

// ScramClient is the proxy's side of a login to a node: First, Continue, Final, each once. With
// Keys it costs a few HMACs; with a password Continue iterates the hash (milliseconds), so never on
// an event loop. One goroutine at a time.
type ScramClient struct {
	keys      *Keys
	password  string
	nonce     string
	phase     clientPhase
	bare      string
	signature []byte // what the server has to answer
}

type clientPhase int

const (
	sendFirst clientPhase = iota
	awaitChallenge
	awaitSignature
	clientFailed
	serverProved
)

// NewScramClient logs in with the keys of an earlier proof.
func NewScramClient(k *Keys) *ScramClient { return &ScramClient{keys: k, nonce: newNonce()} }

// NewScramClientWithPassword logs in with a password.
func NewScramClientWithPassword(password string) *ScramClient {
	return &ScramClient{password: password, nonce: newNonce()}
}

// First returns the client-first-message, the data of SASLInitialResponse. The user name is empty,
// as in libpq: PostgreSQL takes it from the start-up packet.
func (c *ScramClient) First() []byte {
	c.bare = "n=,r=" + c.nonce
	c.phase = awaitChallenge
	return []byte("n,," + c.bare)
}

// Continue takes the server-first-message and returns the client-final-message. The error wraps
// ErrServer.
func (c *ScramClient) Continue(serverFirst []byte) ([]byte, error) {
	if c.phase != awaitChallenge {
		return nil, fmt.Errorf("%w: a challenge out of turn", ErrServer)
	}
	c.phase = clientFailed
	nonce, salt, iterations, err := c.parseChallenge(serverFirst)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrServer, err)
	}
	keys := c.keys
	if keys == nil {
		keys = deriveKeys(c.password, salt, iterations)
	}
	withoutProof := "c=biws,r=" + string(nonce)
	authMessage := c.bare + "," + string(serverFirst) + "," + withoutProof
	var proof key
	xor(&proof, keys.client[:], mac(keys.stored[:], authMessage))
	c.signature = mac(keys.server[:], authMessage)
	c.phase = awaitSignature
	return []byte(withoutProof + ",p=" + base64.StdEncoding.EncodeToString(proof[:])), nil
}

func (c *ScramClient) parseChallenge(msg []byte) (nonce, salt []byte, iterations int, err error) {
	if err := checkSize(msg); err != nil {
		return nil, nil, 0, err
	}
	nonce, rest, err := attribute(msg, 'r')
	if err != nil {
		return nil, nil, 0, err
	}
	if !printable(nonce) || len(nonce) <= len(c.nonce) || !bytes.HasPrefix(nonce, []byte(c.nonce)) {
		return nil, nil, 0, fmt.Errorf("the nonce does not extend ours")
	}
	salt64, rest, err := attribute(rest, 's')
	if err != nil {
		return nil, nil, 0, err
	}
	if salt, err = base64.StdEncoding.DecodeString(string(salt64)); err != nil || len(salt) == 0 {
		return nil, nil, 0, fmt.Errorf("the salt is not base64")
	}
	count, rest, err := attribute(rest, 'i')
	if err != nil {
		return nil, nil, 0, err
	}
	if len(rest) > 0 {
		return nil, nil, 0, fmt.Errorf("data after the iteration count")
	}
	n, err := strconv.ParseUint(string(count), 10, 31)
	if err != nil || n < 1 || c.keys == nil && n > MaxIterations { // keys need no iteration
		return nil, nil, 0, fmt.Errorf("the iteration count is not between 1 and %d", MaxIterations)
	}
	return nonce, salt, int(n), nil
}

// Final checks the server-final-message: only a server that knows the verifier can make it. The
// error wraps ErrServer. A login without a nil from Final is not one.
func (c *ScramClient) Final(serverFinal []byte) error {
	if c.phase != awaitSignature {
		return fmt.Errorf("%w: a final message out of turn", ErrServer)
	}
	c.phase = clientFailed
	if err := checkSize(serverFinal); err != nil {
		return fmt.Errorf("%w: %w", ErrServer, err)
	}
	name, value, rest, err := anyAttribute(serverFinal)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrServer, err)
	case name == 'e':
		return fmt.Errorf("%w: it answered %q", ErrServer, value)
	case name != 'v' || len(rest) > 0:
		return fmt.Errorf("%w: unexpected final message", ErrServer)
	}
	got, err := base64.StdEncoding.DecodeString(string(value))
	if err != nil || !hmac.Equal(got, c.signature) {
		return fmt.Errorf("%w: its signature is wrong", ErrServer)
	}
	c.phase = serverProved
	return nil
}

// Succeeded says whether the server has proved itself; a caller checks it when AuthenticationOk
// arrives, so that a server cannot skip the proof.
func (c *ScramClient) Succeeded() bool { return c.phase == serverProved }
