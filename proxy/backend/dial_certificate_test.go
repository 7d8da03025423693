package backend

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certificate writes a self-signed client certificate; it is its own authority.
func certificate(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func (r *rig) certificate(t *testing.T) {
	n := r.pg.Primary()
	cert, key := certificate(t, r.dir, "certy")
	pemText, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	// The server reads it as another user: it goes where the server's own files are.
	if err := os.WriteFile(filepath.Join(n.Dir, "clients.crt"), pemText, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := n.Set(context.Background(), "ssl_ca_file", "clients.crt"); err != nil {
		t.Fatal(err)
	}
	with := r.dialer(func(c *DialConfig) { c.TLS, c.CertFile, c.KeyFile = TLSRequire, cert, key })
	req := DialRequest{Node: r.node, Database: "shop", User: "certy"}
	for deadline := time.Now().Add(time.Minute); ; { // until the server has read its settings again
		err := login(t, with, req)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	var refusal *ServerError
	without := r.dialer(func(c *DialConfig) { c.TLS = TLSRequire })
	if err := login(t, without, req); !errors.As(err, &refusal) || refusal.SQLState() != "28000" {
		t.Error(err)
	}
}
