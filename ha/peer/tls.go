package peer

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"regexp"
)

// maxName bounds a member's name, in bytes; it is what a label of a host name may have.
const maxName = 63

// nameForm is that of a host name which cannot be taken for an IP address, so that the ordinary
// verification of certificates by name applies.
var nameForm = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*$`)

// CheckName says whether a member may be called so: like a host, and beginning with a letter.
func CheckName(name string) error {
	if len(name) > maxName || !nameForm.MatchString(name) {
		return fmt.Errorf("member name %q: want letters, digits, '.', '-' and '_', at most %d, beginning with a letter", name, maxName)
	}
	return nil
}

// TLS is the configuration of both ends of a member's connections, with a certificate minted for
// its name. A client sets ServerName to the name of the member that it means to reach; both ends
// set NextProtos. Sessions are not resumed: a resumed one would show an older verification.
func (k *Key) TLS(member string) (*tls.Config, error) {
	if err := CheckName(member); err != nil {
		return nil, err
	}
	certificate, err := k.mint(member)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(k.authority)
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{certificate},
		RootCAs:                pool,
		ClientCAs:              pool,
		ClientAuth:             tls.RequireAndVerifyClientCert,
		SessionTicketsDisabled: true,
	}, nil
}

func (k *Key) mint(member string) (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: member},
		DNSNames:     []string{member},
		NotBefore:    always, NotAfter: never,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, k.authority, public, k.private)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, nil
}

// peerName is whose certificate a finished handshake has verified.
func peerName(state tls.ConnectionState) (string, error) {
	if len(state.VerifiedChains) == 0 || len(state.PeerCertificates) == 0 {
		return "", errors.New("peer is not verified")
	}
	names := state.PeerCertificates[0].DNSNames
	if len(names) != 1 {
		return "", fmt.Errorf("peer's certificate has %d names, want one", len(names))
	}
	return names[0], CheckName(names[0])
}
