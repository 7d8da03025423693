package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// KeyFile is the private key with which root and postgres of this host log in to every other one; it
// is ~/.ssh/id_ed25519 there.
func (h *Host) KeyFile() string { return filepath.Join(h.lab.dir, "keys", h.Name) }

// writeKeys makes the hosts' keys and the files that the hosts copy when they boot.
func (l *Lab) writeKeys() error {
	if err := os.Mkdir(filepath.Join(l.dir, "keys"), 0o700); err != nil {
		return err
	}
	var known, authorized, names strings.Builder
	names.WriteString("127.0.0.1 localhost\n")
	for _, h := range l.hosts {
		login, err := writeKey(h.KeyFile())
		if err != nil {
			return err
		}
		authorized.Write(ssh.MarshalAuthorizedKey(login))
		host, err := writeKey(h.KeyFile() + ".host")
		if err != nil {
			return err
		}
		fmt.Fprintf(&known, "%s,%s %s", h.Addr, h.Name, ssh.MarshalAuthorizedKey(host))
		fmt.Fprintf(&names, "%s %s\n", h.Addr, h.Name)
	}
	return errors.Join(
		os.WriteFile(l.KnownHosts(), []byte(known.String()), 0o644),
		os.WriteFile(filepath.Join(l.dir, "authorized_keys"), []byte(authorized.String()), 0o644),
		os.WriteFile(filepath.Join(l.dir, "hosts.txt"), []byte(names.String()), 0o644))
}

func writeKey(file string) (ssh.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "lab")
	if err != nil {
		return nil, err
	}
	pub, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	return pub, os.WriteFile(file, pem.EncodeToMemory(block), 0o600)
}
