package backend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// TLSMode is libpq's sslmode.
type TLSMode string

// The modes. A node on a Unix socket never uses TLS.
const (
	TLSDisable    TLSMode = "disable"     // plain
	TLSPrefer     TLSMode = "prefer"      // encrypted if the server can; protects from nobody who can change packets
	TLSRequire    TLSMode = "require"     // encrypted, with whoever answers (unless there is a CA file)
	TLSVerifyCA   TLSMode = "verify-ca"   // and its certificate is signed by the CA file
	TLSVerifyFull TLSMode = "verify-full" // and made out to the node's host
)

func (c *DialConfig) validateTLS() error {
	switch c.TLS {
	case TLSDisable, TLSPrefer, TLSRequire:
	case TLSVerifyCA, TLSVerifyFull:
		if c.CAFile == "" {
			return fmt.Errorf("server TLS mode %q needs a CA file", c.TLS)
		}
	default:
		return fmt.Errorf("server TLS mode %q: want disable, prefer, require, verify-ca or verify-full", c.TLS)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("server TLS: a client certificate needs both certificate file and key file")
	}
	return nil
}

// load reads the files into the configuration that all connections share.
func (c *DialConfig) load() (*tls.Config, error) {
	if c.TLS == TLSDisable {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load the client certificate for servers: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("load the CA file for servers: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("load the CA file for servers: no certificate in %s", c.CAFile)
		}
	}
	if c.TLS == TLSVerifyFull {
		return t, nil
	}
	t.InsecureSkipVerify = true // replaced by VerifyConnection, or asked for by the mode
	if c.TLS == TLSVerifyCA || c.TLS == TLSRequire && t.RootCAs != nil {
		roots := t.RootCAs
		t.VerifyConnection = func(s tls.ConnectionState) error { return signedBy(roots, s) }
	}
	return t, nil
}

// signedBy checks the chain and its dates, not the name.
func signedBy(roots *x509.CertPool, s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the server sent no certificate")
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(opts)
	return err
}

// secure asks for TLS as the mode says and tells whether it is on.
func (d *Dialer) secure(ctx context.Context, s Stream, node topology.Node) (bool, error) {
	if d.tls == nil || strings.HasPrefix(node.Host, "/") {
		return false, nil
	}
	ask, err := sslRequest()
	if err != nil {
		return false, err
	}
	if _, err := s.Write(ask); err != nil {
		return false, fmt.Errorf("ask for TLS: %w", err)
	}
	// Exactly one byte: what an attacker puts behind it in plain text ends in the handshake,
	// where it fails (CVE-2021-23222).
	var answer [1]byte
	if _, err := s.Read(answer[:]); err != nil {
		return false, fmt.Errorf("ask for TLS: %w", err)
	}
	switch answer[0] {
	case 'S':
		cfg := d.tls.Clone()
		cfg.ServerName = node.Host
		if err := s.StartTLS(ctx, cfg); err != nil {
			return false, err
		}
		return true, nil
	case 'N':
		if d.cfg.TLS == TLSPrefer {
			return false, nil
		}
		return false, fmt.Errorf("the server offers no TLS, but mode %q asks for it", d.cfg.TLS)
	}
	// An 'E' here is an error text that anybody could have written (CVE-2024-10977): not for users.
	return false, fmt.Errorf("the server answers the TLS request with %q", answer[0])
}

// plainStream is a Stream for those who need no event loop: side connections and cancel requests.
type plainStream struct {
	net.Conn
	raw net.Conn // for SetDeadline, which may be called while StartTLS replaces Conn
}

// SetDeadline sets the deadline of the socket, also during a TLS handshake.
func (p *plainStream) SetDeadline(t time.Time) error { return p.raw.SetDeadline(t) }

// StartTLS makes the stream a TLS client.
func (p *plainStream) StartTLS(ctx context.Context, cfg *tls.Config) error {
	c := tls.Client(p.raw, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	p.Conn = c
	return nil
}

// DialConn is Open for a blocking client such as the catalogue's: the connection is an ordinary
// net.Conn.
func (d *Dialer) DialConn(ctx context.Context, req DialRequest) (net.Conn, *Login, error) {
	s := &plainStream{}
	login, err := d.Open(ctx, req, func(c net.Conn) (Stream, error) { s.Conn, s.raw = c, c; return s, nil })
	if err != nil {
		return nil, nil, err
	}
	return s.Conn, login, nil
}
