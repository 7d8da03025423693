package auth

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
)

// newNonce returns a fresh nonce: base64, so every byte is printable and none is a comma.
func newNonce() string {
	b := make([]byte, nonceBytes)
	rand.Read(b) // never fails (crypto/rand)
	return base64.StdEncoding.EncodeToString(b)
}

// checkSize refuses what no honest peer sends, before anything is parsed.
func checkSize(msg []byte) error {
	if len(msg) > MaxMessage {
		return fmt.Errorf("%d bytes, at most %d are allowed", len(msg), MaxMessage)
	}
	if bytes.IndexByte(msg, 0) >= 0 {
		return errors.New("a zero byte inside the message")
	}
	return nil
}

// attribute takes "<name>=<value>" off the front of msg, up to a comma or the end.
func attribute(msg []byte, name byte) (value, rest []byte, err error) {
	got, value, rest, err := anyAttribute(msg)
	if err == nil && got != name {
		return nil, nil, fmt.Errorf("attribute %q expected", string(name))
	}
	return value, rest, err
}

// anyAttribute takes the first attribute off msg. Names are one ASCII letter (RFC 5802 section 5.1).
func anyAttribute(msg []byte) (name byte, value, rest []byte, err error) {
	if len(msg) < 2 || msg[1] != '=' {
		return 0, nil, nil, errors.New("attribute expected")
	}
	name = msg[0]
	if (name|0x20) < 'a' || (name|0x20) > 'z' {
		return 0, nil, nil, errors.New("an attribute's name is no letter")
	}
	value, rest, more := bytes.Cut(msg[2:], []byte{','})
	if more && len(rest) == 0 {
		return 0, nil, nil, errors.New("a comma at the end")
	}
	return name, value, rest, nil
}

// printable says whether s may be a nonce: printable ASCII without comma, at least one character.
func printable(s []byte) bool {
	for _, c := range s {
		if c < 0x21 || c > 0x7e || c == ',' {
			return false
		}
	}
	return len(s) > 0
}

// xor sets dst to a XOR b; all three have keyBytes bytes.
func xor(dst *key, a, b []byte) {
	for i := range dst {
		dst[i] = a[i] ^ b[i]
	}
}
