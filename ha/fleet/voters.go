package fleet

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/ha/consensus"
	"github.com/cstproxy/cstproxy/ha/peer"
)

// Change is what an operator changes about who votes.
type Change struct {
	// Verb is "add", "remove" or "readmit"; see consensus.Log. Of a Member to remove only the name counts.
	Verb   string         `json:"verb"`
	Member peer.Member    `json:"member"`
	Role   consensus.Role `json:"role,omitempty"` // of one to add; empty: a voter
}

// Voter has the leader change who votes. It may be repeated. Errors as of Command.
func (f *Fleet) Voter(ctx context.Context, c Change) error {
	if f.alone() {
		return refused("a member alone has no other voters; configure [fleet] on all members first")
	}
	if c.Verb == "remove" && f.role(c.Member.Name) == "" {
		return &failure{Kind: "unknown", Text: fmt.Sprintf("the fleet has no member %q", c.Member.Name)}
	}
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	return f.ask(ctx, voterMethod, c, new(struct{}))
}

func (f *Fleet) voter(ctx context.Context, c Change) (struct{}, error) {
	if _, err := f.throne(ctx); err != nil {
		return struct{}{}, err
	}
	log := f.parts.Log
	switch c.Verb {
	case "add":
		if c.Role == "" {
			c.Role = consensus.Voter
		}
		return struct{}{}, log.Add(ctx, c.Member, c.Role)
	case "readmit":
		return struct{}{}, log.Readmit(ctx, c.Member)
	case "remove":
		if f.role(c.Member.Name) == "" {
			return struct{}{}, nil // by an attempt whose answer was lost
		}
		gone := f.inLogAs(c.Member.Name)
		err := log.Remove(ctx, c.Member.Name)
		if err == nil && gone.Name != f.cfg.Name {
			f.retire(ctx, gone)
		}
		return struct{}{}, err
	}
	return struct{}{}, refused("there is no change %q: add, remove or readmit", c.Verb)
}

// inLogAs is the member of that name, as the log has it.
func (f *Fleet) inLogAs(name string) peer.Member {
	for _, m := range f.parts.Log.Members() {
		if m.Name == name {
			return m.Member
		}
	}
	return peer.Member{Name: name}
}

func refused(format string, args ...any) error {
	return &failure{Kind: "refused", Text: fmt.Sprintf(format, args...)}
}

// lingering is for how long a member that is not in the log any more is remembered: longer than a
// report that was under way when it was taken out, and the lease that this may have brought, can last.
func (f *Fleet) lingering() time.Duration { return 2*f.cfg.Terms.Length + f.cfg.Terms.Wait() }

// remember notes who is in the log, so that a leader which was elected right after somebody was taken
// out knows of whom an older leader's lease may last.
func (f *Fleet) remember() {
	if f.alone() {
		return
	}
	members, now := f.parts.Log.Members(), Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range members {
		f.met[m.Name] = now
	}
	for name, last := range f.met {
		if now-last > 2*f.lingering() {
			delete(f.met, name)
		}
	}
}

// departed are members of before the present leadership that are not in the log any more, and may
// hold leases of an older leader. A process that has just begun does not know who they are. f.mu is held.
func (f *Fleet) departed(s *seat, in map[string]bool) []string {
	if f.alone() || Now() >= s.since+f.cfg.Terms.Wait() {
		return nil
	}
	var names []string
	for name, last := range f.met {
		if !in[name] && s.since-last < f.lingering() {
			names = append(names, name)
		}
	}
	if s.since-f.born < f.lingering() {
		names = append(names, "(one that this member has not met)")
	}
	slices.Sort(names)
	return names
}

// MemberStatus is a member as the leader knows it.
type MemberStatus struct {
	Name    string         `json:"name"`
	Address string         `json:"address"`
	Role    consensus.Role `json:"role"`
	Leads   bool           `json:"leads"`
	Witness bool           `json:"witness,omitempty"`
	// Heard is how long ago its newest report came; nil when none has, or no leader could be asked.
	Heard *time.Duration `json:"heard,omitempty"`
}

// Members are those in the log, with what the leader has heard of them. When no leader can be asked
// the error is ErrNoLeader and the list is what this member knows.
func (f *Fleet) Members(ctx context.Context) ([]MemberStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, questionTime)
	defer cancel()
	var list []MemberStatus
	if err := f.ask(ctx, membersMethod, struct{}{}, &list); err != nil {
		return f.inLog(), err
	}
	return list, nil
}

// inLog is what the log says of the members.
func (f *Fleet) inLog() []MemberStatus {
	if f.alone() {
		return []MemberStatus{{Name: f.cfg.Name, Role: consensus.Voter, Leads: true}}
	}
	leader := f.parts.Log.Leader().Name
	list := []MemberStatus{}
	for _, m := range f.parts.Log.Members() {
		list = append(list, MemberStatus{Name: m.Name, Address: m.Address, Role: m.Role, Leads: m.Name == leader})
	}
	return list
}

func (f *Fleet) memberList(ctx context.Context, _ struct{}) ([]MemberStatus, error) {
	r, err := f.throne(ctx)
	if err != nil {
		return nil, err
	}
	list, now := f.inLog(), Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range list {
		for _, s := range r.seats {
			h := s.members[list[i].Name]
			if h == nil {
				continue
			}
			if ago := now - h.Heard; list[i].Heard == nil || ago < *list[i].Heard {
				list[i].Heard, list[i].Witness = &ago, h.Witness
			}
		}
	}
	return list, nil
}
