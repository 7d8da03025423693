package e2e

import (
	"context"
	"testing"
	"time"
)

// The leader dies at a step of a failover that it has just committed. Its successor goes on from there,
// or takes it back and begins anew: in the end there is one new primary, and nobody writes elsewhere.
func TestAFailoverWhoseLeaderDiesIsEndedByItsSuccessor(t *testing.T) {
	_, f := three(t, Layout{
		Operation: map[string]string{"on_crash": `"failover"`, "anti_flap": `"0s"`},
		Cluster:   virtual,
	})
	for _, name := range []string{"intent", "freeze", "fence", "promote", "after"} {
		t.Run(name, func(t *testing.T) {
			if name == "intent" || name == "freeze" || name == "after" {
				slow(t)
			}
			primary := f.awaitWhole(t, 3*patience)
			leader := f.elsewhere(primary)
			f.awaitLeader(t, leader)
			s := enact(t, f, usual(f.way(f.memberOn(primary.Host))))
			s.happens(s.former.Kill)
			awaitStep(t, leader, s.event, name)
			leader.Kill()
			died := time.Now()
			await(t, "another leader", func(context.Context) bool {
				now := f.leads()
				return now != nil && now != leader
			})
			t.Logf("another leader %s after the death of the one before", time.Since(died).Round(time.Millisecond))
			now := s.awaitSuccessor()
			leader.Start()
			leader.AwaitReady()
			if whole := f.awaitWhole(t, 3*patience); whole != now {
				t.Errorf("%s is the primary, after %s", whole.Name, now.Name)
			}
			s.heldBy(writeVIP, now.Host)
			s.ends(operationsEnd, nobodyWasAhead)
		})
	}
}
