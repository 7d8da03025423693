// Package peer is how the members of a fleet talk to each other: the fleet's key file, from which
// each member mints its own certificate, and the Link, one TCP port per member for calls and for
// the consensus log's streams, mutually authenticated with TLS 1.3. Who holds the key is a member;
// members are not defended against each other, so names are for order, not for rights. What comes
// in before a peer is authenticated is hostile, and bounded in time, number and size.
package peer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	keyType         = "PRIVATE KEY"
	certificateType = "CERTIFICATE"
	keyMode         = 0o600
	maxKeyFile      = 64 << 10 // bytes
	gossipKeySize   = 32       // bytes; memberlist takes AES-256
)

// Certificates are as old and last as long as their format allows: the key file is the trust, and a
// member whose clock is wrong must still be able to take part in a failover.
var (
	always = time.Unix(0, 0).UTC()
	never  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// ErrKey is wrapped by every refusal of a key file.
var ErrKey = errors.New("fleet key refused")

// Key is a fleet's secret: an ed25519 certificate authority. All members of a fleet have the same.
type Key struct {
	private   ed25519.PrivateKey
	authority *x509.Certificate
	gossip    []byte
}

// complete derives what is derived.
func complete(private ed25519.PrivateKey, authority *x509.Certificate) (*Key, error) {
	gossip, err := hkdf.Key(sha256.New, private.Seed(), nil, "cstproxy gossip v1", gossipKeySize)
	if err != nil {
		return nil, fmt.Errorf("derive gossip key: %w", err)
	}
	return &Key{private: private, authority: authority, gossip: gossip}, nil
}

// NewKey makes the key of a new fleet.
func NewKey() (*Key, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make fleet key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "cstproxy fleet"},
		NotBefore:    always, NotAfter: never,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, fmt.Errorf("make fleet key: %w", err)
	}
	authority, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make fleet key: %w", err)
	}
	return complete(private, authority)
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return serial, nil
}

// LoadKey reads a key file. It is refused when anybody but its owner may read or write it, and when
// its owner is neither root nor this process's user.
func LoadKey(path string) (*Key, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read fleet key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read fleet key: %w", err)
	}
	if err := guarded(path, info); err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read fleet key: %w", err)
	}
	key, err := ParseKey(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func guarded(path string, info os.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is no regular file", ErrKey, path)
	}
	if open := info.Mode().Perm() &^ keyMode; open != 0 {
		return fmt.Errorf("%w: %s has mode %04o, so others can read it, use it or change it; chmod 600 %s",
			ErrKey, path, info.Mode().Perm(), path)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to user %d, and this is user %d", ErrKey, path, stat.Uid, os.Geteuid())
	}
	return nil
}

// ParseKey reads a key file's content: one private key and its certificate, in PEM, and nothing else.
func ParseKey(content []byte) (*Key, error) {
	if len(content) > maxKeyFile {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrKey, maxKeyFile)
	}
	first, rest := pem.Decode(content)
	if first == nil || first.Type != keyType {
		return nil, fmt.Errorf("%w: want a PEM block %q first", ErrKey, keyType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(first.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: the private key cannot be read", ErrKey) // err may quote the secret
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: the private key is a %T, want ed25519", ErrKey, parsed)
	}
	second, rest := pem.Decode(rest)
	if second == nil || second.Type != certificateType {
		return nil, fmt.Errorf("%w: want a PEM block %q second", ErrKey, certificateType)
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("%w: something follows the certificate", ErrKey)
	}
	authority, err := x509.ParseCertificate(second.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate: %w", ErrKey, err)
	}
	public, ok := authority.PublicKey.(ed25519.PublicKey)
	if !ok || !public.Equal(private.Public()) {
		return nil, fmt.Errorf("%w: the certificate is not that of the private key", ErrKey)
	}
	if !authority.IsCA || authority.CheckSignature(authority.SignatureAlgorithm, authority.RawTBSCertificate, authority.Signature) != nil {
		return nil, fmt.Errorf("%w: the certificate is no authority of its own", ErrKey)
	}
	return complete(private, authority)
}

// PEM is the content of a key file: the secret itself.
func (k *Key) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("write fleet key: %w", err)
	}
	out := pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: k.authority.Raw})...), nil
}

// WriteKey makes a key file, readable by its owner only and on disk when WriteKey returns. It never
// replaces a file: a fleet whose members have different keys is no fleet.
func WriteKey(path string, k *Key) error {
	content, err := k.PEM()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, keyMode)
	if err != nil {
		return fmt.Errorf("write fleet key: %w", err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = syncDirectory(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write fleet key: %w", err), os.Remove(path))
	}
	return nil
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Gossip is the key of the fleet's gossip: 32 bytes, derived, so that one file is all there is to
// copy and what encrypts the gossip does not sign certificates.
func (k *Key) Gossip() []byte { return bytes.Clone(k.gossip) }

// String keeps the secret out of logs and errors.
func (k *Key) String() string { return "fleet key" }

// GoString keeps the secret out of %#v.
func (k *Key) GoString() string { return "fleet key" }
