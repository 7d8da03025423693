package vip

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Want says who shall hold a VIP; Holder "" is nobody.
type Want struct {
	VIP    VIP
	Holder string // a host, by any name that Sight uses too
}

// Sight is what a host was seen to have.
type Sight struct {
	// Known: it was asked and answered. What a host has that did not answer is unknown.
	Known     bool
	Addresses []Address
}

// Verb is what is done to a VIP on a host.
type Verb string

const (
	Drop     Verb = "drop"     // off the host
	Take     Verb = "take"     // onto the host, and announced
	Announce Verb = "announce" // it is there; the segment is told again
)

// Action is one thing to do.
type Action struct {
	Verb Verb
	VIP  VIP
	Host string
	Why  string
}

func (a Action) String() string { return fmt.Sprintf("%s %s on %s: %s", a.Verb, a.VIP, a.Host, a.Why) }

// Plan compares what is wanted with what was seen. Actions of one VIP are in the order in which they
// have to be done: it leaves every host that has it before it goes to another. A host that did not
// answer cannot be told to drop; the VIP is taken nevertheless, and announced in any case, because
// the announcements of whoever else has it may have come in between. When every host answers and
// all is as wanted, the plan is empty. A host that is seen under two names has it under both.
func Plan(wants []Want, seen map[string]Sight) []Action {
	var plan []Action
	wants = slices.SortedFunc(slices.Values(wants), func(a, b Want) int {
		return cmp.Or(a.VIP.Addr().Compare(b.VIP.Addr()), cmp.Compare(a.VIP.Kind, b.VIP.Kind))
	})
	hosts := slices.Sorted(maps.Keys(seen))
	for _, w := range wants {
		holds := false
		silent, dropped := "", ""
		for _, host := range hosts {
			s := seen[host]
			switch held := s.Known && len(Held(w.VIP, s.Addresses)) > 0; {
			case host == w.Holder:
				holds = held
			case held && same(w.VIP, s, seen[w.Holder]): // the same host by another name
			case held:
				dropped = host
				plan = append(plan, Action{Drop, w.VIP, host, dropWhy(w)})
			case !s.Known:
				silent = host
			}
		}
		switch {
		case w.Holder == "":
		case !holds:
			plan = append(plan, Action{Take, w.VIP, w.Holder, "it has to be there and is not seen there"})
		case dropped != "":
			plan = append(plan, Action{Announce, w.VIP, w.Holder, dropped + " had it too"})
		case silent != "":
			plan = append(plan, Action{Announce, w.VIP, w.Holder, silent + " does not say whether it has it too"})
		}
	}
	return plan
}

// same says whether two that have a VIP are one host: no two on its segment have one MAC.
func same(v VIP, a, b Sight) bool {
	for _, x := range Held(v, a.Addresses) {
		for _, y := range Held(v, b.Addresses) {
			if x.MAC != nil && slices.Equal(x.MAC, y.MAC) {
				return true
			}
		}
	}
	return false
}

func dropWhy(w Want) string {
	if w.Holder == "" {
		return "nobody shall have it"
	}
	return w.Holder + " shall have it"
}

// Reader chooses who holds a read VIP: whoever has it keeps it while among the standbys that take
// reads (best first), so that it moves only when it must; without any standby it is the primary's.
// "" when there is nobody.
func Reader(present string, standbys []string, primary string) string {
	switch {
	case slices.Contains(standbys, present):
		return present
	case len(standbys) > 0:
		return standbys[0]
	}
	return primary
}
