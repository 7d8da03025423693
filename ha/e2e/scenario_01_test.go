package e2e

import "testing"

// virtual is a cluster whose write address follows the primary.
var virtual = map[string]string{"write_vip": `"` + writeVIP + `/24"`}

const writeVIP = "10.77.0.100"

// on_crash = "failover": nobody tries to start it where it was.
func TestACrashedPrimaryIsReplacedAtOnceWhereThatIsThePolicy(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{Operation: map[string]string{"on_crash": `"failover"`}, Cluster: virtual})
	load := usual(f.way(f.members[1]))
	load.Readers, load.Pinned = 2, 2
	s := enact(t, f, load)
	s.happens(s.former.Kill)
	s.heldBy(writeVIP, s.awaitSuccessor().Host)
	f.awaitWhole(t, 2*patience)
	s.ends(idleClientsStay, operationsEnd)
}
