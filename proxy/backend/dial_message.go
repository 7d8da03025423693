package backend

import (
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/jackc/pgproto3/v2"

	"github.com/cstproxy/cstproxy/proxy/wire"
)

// What the proxy itself says while it logs in. pgproto3/v2 only encodes here: its decoders panic
// on malformed input (GO-2026-4518) and are not used anywhere.

func sslRequest() ([]byte, error) { return encode(&pgproto3.SSLRequest{}) }

func startupMessage(parameters map[string]string) ([]byte, error) {
	return encode(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: parameters})
}

func passwordMessage(password string) ([]byte, error) {
	return encode(&pgproto3.PasswordMessage{Password: password})
}

func saslInitial(mechanism string, data []byte) ([]byte, error) {
	return encode(&pgproto3.SASLInitialResponse{AuthMechanism: mechanism, Data: data})
}

func saslResponse(data []byte) ([]byte, error) { return encode(&pgproto3.SASLResponse{Data: data}) }

func encode(m pgproto3.FrontendMessage) ([]byte, error) {
	b, err := m.Encode(nil)
	if err != nil {
		return nil, fmt.Errorf("build %T: %w", m, err)
	}
	return b, nil
}

// cancelMessage is written by hand: the library knows only secrets of four bytes, and protocol 3.2
// has longer ones.
func cancelMessage(pid uint32, secret []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(secret)))
	b = binary.BigEndian.AppendUint32(b, wire.CodeCancel)
	b = binary.BigEndian.AppendUint32(b, pid)
	return append(b, secret...)
}

// md5Answer is md5(md5(password user) salt), as AuthenticationMD5Password asks for.
func md5Answer(password, user string, salt [4]byte) string {
	inner := md5.Sum([]byte(password + user))
	outer := md5.Sum(append([]byte(hex.EncodeToString(inner[:])), salt[:]...))
	return "md5" + hex.EncodeToString(outer[:])
}
