package peer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newKey(t testing.TB) *Key {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAKeyIsTheSameAfterWritingAndReading(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.key")
	k := newKey(t)
	if err := WriteKey(path, k); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	again, err := LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(k.Gossip()) != 32 || !bytes.Equal(k.Gossip(), again.Gossip()) || bytes.Equal(k.Gossip(), newKey(t).Gossip()) {
		t.Error("the gossip key is not this key's alone")
	}
	if err := WriteKey(path, newKey(t)); !errors.Is(err, os.ErrExist) {
		t.Errorf("a key was replaced: %v", err)
	}
}

func TestAKeyThatOthersCanReadIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.key")
	if err := WriteKey(path, newKey(t)); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o602, 0o700, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if _, err := LoadKey(filepath.Dir(path)); !errors.Is(err, ErrKey) {
		t.Errorf("a directory: %v", err)
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, 12345, 12345)); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path); !errors.Is(err, ErrKey) {
			t.Errorf("somebody else's file: %v", err)
		}
	}
}

func TestAKeyFileIsAKeyAndItsCertificateAndNothingElse(t *testing.T) {
	mine, err := newKey(t).PEM()
	if err != nil {
		t.Fatal(err)
	}
	other, err := newKey(t).PEM()
	if err != nil {
		t.Fatal(err)
	}
	cut := bytes.Index(mine, []byte("-----BEGIN CERT"))
	elliptical, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(elliptical)
	if err != nil {
		t.Fatal(err)
	}
	wrong := pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der})
	for name, content := range map[string][]byte{
		"empty": nil, "garbage": []byte("hello"), "no certificate": mine[:cut], "no key": mine[cut:],
		"somebody else's certificate": append(bytes.Clone(mine[:cut]), other[cut:]...),
		"more behind it":              append(bytes.Clone(mine), other...),
		"another kind of key":         append(wrong, mine[cut:]...),
		"a broken key":                pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: []byte("x")}),
		"too long":                    bytes.Repeat([]byte("x"), maxKeyFile+1),
	} {
		if _, err := ParseKey(content); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseKey(mine); err != nil {
		t.Error(err)
	}
}

func TestASecretIsNotPrinted(t *testing.T) {
	k := newKey(t)
	secret := fmt.Sprintf("%x", k.private.Seed()[:4])
	for _, form := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if text := fmt.Sprintf(form, k); strings.Contains(text, secret) || len(text) > 40 {
			t.Errorf("%s: %s", form, text)
		}
	}
}

func TestNamesOfMembersAreThoseOfHosts(t *testing.T) {
	for _, name := range []string{"m1", "a", "db-proxy_1.example.com", "M1"} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "10.0.0.1", "1m", "m1.", ".m1", "a b", "m\n", "-m", "m-", "a..b", "ü", strings.Repeat("m", 64), "*", "*.m"} {
		if CheckName(name) == nil {
			t.Errorf("%q is a member's name", name)
		}
	}
}
