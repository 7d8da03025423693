package remote

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode"
)

// Token names a decision: a step of an operation on one data directory of one cluster of one fleet.
// For each data directory the host keeps the highest (Epoch, Step) that it was asked to act under,
// over restarts and power cuts, and does nothing for a lower one.
type Token struct {
	Fleet, Cluster string
	// PGData is the data directory's absolute path as configured. It is a name: the host does not
	// follow symbolic links in it.
	PGData string
	Epoch  uint64 // from 1
	Step   int    // from 0
}

// maxEpoch keeps epochs within what every shell can compare.
const maxEpoch = 1e17

func (t Token) validate() error {
	for what, name := range map[string]string{"fleet": t.Fleet, "cluster": t.Cluster, "data directory": t.PGData} {
		if name == "" || len(name) > 4096 || strings.ContainsFunc(name, unicode.IsControl) {
			return fmt.Errorf("token: the %s's name %q is not usable", what, name)
		}
	}
	if !path.IsAbs(t.PGData) {
		return fmt.Errorf("token: the data directory %q is not an absolute path", t.PGData)
	}
	if t.Epoch == 0 || t.Epoch > maxEpoch || t.Step < 0 || t.Step > maxEpoch {
		return errors.New("token: epoch or step out of range")
	}
	return nil
}

// key names the ratchet's folder on the host.
func (t Token) key() string {
	sum := sha256.Sum256([]byte(t.Fleet + "\x00" + t.Cluster + "\x00" + path.Clean(t.PGData)))
	return hex.EncodeToString(sum[:16])
}
