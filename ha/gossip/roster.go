package gossip

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Presence says whether a member is there, as far as its silence tells.
type Presence int

const (
	Gone    Presence = iota // it does not answer; it may be alive behind a broken network
	Left                    // it said goodbye
	Present                 // it answers somebody
)

func (p Presence) String() string {
	switch p {
	case Present:
		return "present"
	case Left:
		return "left"
	}
	return "gone"
}

// Member is what is known of one member.
type Member struct {
	Name     string
	Address  string // of its gossip, "ip:port"
	Meta     Meta
	Presence Presence
	Since    time.Time // of Presence
}

// EventKind says what happened.
type EventKind int

const (
	Joined   EventKind = iota // a member is there, for the first time or again
	Changed                   // it tells something else of itself
	Departed                  // it is not there any more; Member.Presence says why
	Message                   // somebody called Broadcast
	Amended                   // the ledger changed
)

func (k EventKind) String() string {
	return [...]string{"joined", "changed", "departed", "message", "amended"}[k]
}

// Event is one thing that happened.
type Event struct {
	Kind EventKind
	// Member is whom it is about; of Message and Amended only the Name, of the author.
	Member  Member
	Payload []byte   // of Message
	Keys    []string // of Amended
}

// maxMembers bounds the fleet; more names than that are refused.
const maxMembers = 64

// roster is the members by name, kept from what memberlist tells: its own list cannot be read
// without a race on the members' descriptions.
type roster struct {
	self    string
	mu      sync.Mutex
	own     Member
	members map[string]*Member
	leaving map[string]time.Time // said goodbye then, still counted as present by memberlist
}

// goodbyeHolds is how long after its goodbye a member's silence means that it left. One that is
// back before memberlist has noticed its absence never joins anew.
const goodbyeHolds = 10 * time.Second

func newRoster(self string) *roster {
	return &roster{self: self, members: map[string]*Member{}, leaving: map[string]time.Time{},
		own: Member{Name: self, Presence: Left}}
}

func (r *roster) advertise(a address) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own.Address, r.own.Presence, r.own.Since = a.String(), Present, time.Now()
}

// join notes that a member is present and returns it.
func (r *roster) join(m Member) Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	m.Presence, m.Since = Present, time.Now()
	delete(r.leaving, m.Name)
	r.members[m.Name] = &m
	return m
}

// describe notes what a member tells of itself; false when it is not known.
func (r *roster) describe(m Member) (Member, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.members[m.Name]
	if known == nil {
		return Member{}, false
	}
	known.Address, known.Meta = m.Address, m.Meta
	return *known, true
}

// goodbye notes that a member is about to leave, so that its silence says Left.
func (r *roster) goodbye(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.members[name] != nil {
		r.leaving[name] = time.Now()
	}
}

// depart notes that a member is not there any more; false when it is not known.
func (r *roster) depart(name string) (Member, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.members[name]
	if known == nil {
		return Member{}, false
	}
	known.Presence, known.Since = Gone, time.Now()
	if said, ok := r.leaving[name]; ok && time.Since(said) < goodbyeHolds {
		known.Presence = Left
	}
	delete(r.leaving, name)
	return *known, true
}

// admit says whether there is room for a name. The member that has been away for the longest time
// is forgotten for a new one.
func (r *roster) admit(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name == r.self || r.members[name] != nil || len(r.members) < maxMembers {
		return true
	}
	var away *Member
	for _, m := range r.members {
		if m.Presence != Present && (away == nil || m.Since.Before(away.Since)) {
			away = m
		}
	}
	if away == nil {
		return false
	}
	delete(r.members, away.Name)
	return true
}

// reachable are the members, but this one, that may hear what is sent to them: all that did not say
// goodbye. One that is called gone may be alive, and a packet costs nothing.
func (r *roster) reachable() []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Member
	for _, m := range r.members {
		if m.Presence != Left {
			list = append(list, *m)
		}
	}
	return list
}

// size is how many members are present, this one included.
func (r *roster) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 1
	for _, m := range r.members {
		if m.Presence == Present {
			n++
		}
	}
	return n
}

func (r *roster) all(own Meta) []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Member, 0, 1+len(r.members))
	for _, m := range r.members {
		list = append(list, *m)
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	self := r.own
	self.Meta = own
	return slices.Insert(list, 0, self)
}
