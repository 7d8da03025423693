package pgnode

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// MarkerSetting is the setting that a server carries in postgresql.auto.conf: the newest epoch for
// which somebody changed whom it follows. Everybody may read it.
const MarkerSetting = "cstproxy.epoch"

// Marker is the value of MarkerSetting: "7" on a standby that was recruited for epoch 7, "7 released"
// once it follows somebody again. It never goes back: it is the ratchet of what is done by SQL. The
// zero Marker is a server that nobody has touched.
type Marker struct {
	Epoch    topology.Epoch
	Released bool
}

// ParseMarker reads the setting's text; what is no marker is an error, and not the zero Marker.
func ParseMarker(s string) (Marker, error) {
	if s == "" {
		return Marker{}, nil
	}
	digits, released := strings.CutSuffix(s, " released")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n == 0 {
		return Marker{}, fmt.Errorf("parse marker %q: want an epoch, or an epoch and \"released\"", s)
	}
	return Marker{topology.Epoch(n), released}, nil
}

func (m Marker) String() string {
	switch {
	case m.Epoch == 0:
		return ""
	case m.Released:
		return strconv.FormatUint(uint64(m.Epoch), 10) + " released"
	}
	return strconv.FormatUint(uint64(m.Epoch), 10)
}

// Passed says whether m is later than what an action would leave: the action comes too late. Within
// one epoch a standby is recruited first and released after.
func (m Marker) Passed(by Marker) bool {
	return m.Epoch > by.Epoch || m.Epoch == by.Epoch && m.Released && !by.Released
}

// Late is the error of an action whose epoch is over on that server: nothing was done.
type Late struct{ Seen, Want Marker }

func (e *Late) Error() string {
	return fmt.Sprintf("the server is marked %q: too late for %q", e.Seen, e.Want)
}
