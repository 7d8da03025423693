package consensus

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/peer"
)

// ErrRefused is wrapped by every refusal to change the voters; the text says why.
var ErrRefused = errors.New("refused")

// ErrNoMember says that no member of the fleet has the name.
var ErrNoMember = errors.New("the fleet has no member of this name")

// Role is what part a member of the log has.
type Role string

const (
	Voter    Role = "voter"    // has a vote, and may lead
	Follower Role = "follower" // receives the log
)

// Voting is a member in the log.
type Voting struct {
	peer.Member
	Role Role
	// Identity is the name and the disk under which it is known.
	Identity string
}

// Members are those in the log, in the order in which they came.
func (l *Log) Members() []Voting {
	up := l.up.Load()
	if up == nil {
		return nil
	}
	var list []Voting
	for _, s := range servers(up.node) {
		role := Follower
		if s.Suffrage == raft.Voter {
			role = Voter
		}
		list = append(list, Voting{peer.Member{Name: nameOf(s.ID), Address: string(s.Address)}, role, string(s.ID)})
	}
	return list
}

// Add gives a member a part, or another part or address, and waits until a majority has it on disk.
// A member that is new must be running, with nothing on its disk. One that is in the log under
// another disk is refused: Readmit is for that.
func (l *Log) Add(ctx context.Context, member peer.Member, role Role) error {
	theirs, err := l.introduceTo(ctx, member)
	if err != nil {
		return fmt.Errorf("add member %s: %w", member.Name, err)
	}
	for _, known := range l.Members() {
		switch {
		case known.Identity == string(theirs.ID):
			return l.admit(ctx, member, theirs.ID, role)
		case known.Name == member.Name:
			return fmt.Errorf("add member %s: %w: it has lost the disk by which the fleet knows it; readmit it, if its old disk will not come back",
				member.Name, ErrRefused)
		case known.Address == member.Address:
			return fmt.Errorf("add member %s: %w: %s has the address %s", member.Name, ErrRefused, known.Name, known.Address)
		}
	}
	if !theirs.Empty {
		return fmt.Errorf("add member %s: %w: its directory holds the log of another fleet", member.Name, ErrRefused)
	}
	return l.admit(ctx, member, theirs.ID, role)
}

// Readmit gives a member that has lost its disk its part back, under its new identity. It is an
// operator's word that the old disk will not come back with this name.
func (l *Log) Readmit(ctx context.Context, member peer.Member) error {
	theirs, err := l.introduceTo(ctx, member)
	if err != nil {
		return fmt.Errorf("readmit member %s: %w", member.Name, err)
	}
	for _, known := range l.Members() {
		if known.Name != member.Name {
			continue
		}
		if known.Identity == string(theirs.ID) {
			return fmt.Errorf("readmit member %s: %w: it has not lost its disk", member.Name, ErrRefused)
		}
		if !theirs.Empty {
			return fmt.Errorf("readmit member %s: %w: its directory holds the log of another fleet", member.Name, ErrRefused)
		}
		if err := l.Remove(ctx, member.Name); err != nil {
			return err
		}
		return l.admit(ctx, member, theirs.ID, known.Role)
	}
	return fmt.Errorf("readmit member %s: %w", member.Name, ErrNoMember)
}

// Remove takes a member out of the log. A leader that removes itself leads no more.
func (l *Log) Remove(ctx context.Context, name string) error {
	for _, known := range l.Members() {
		if known.Name != name {
			continue
		}
		err := l.ask(ctx, func(node *raft.Raft) error {
			if known.Role == Voter && voters(node) == 1 {
				return applied{fmt.Errorf("%w: it is the last voter", ErrRefused)}
			}
			return node.RemoveServer(raft.ServerID(known.Identity), 0, enqueueTime).Error()
		})
		if err != nil {
			return fmt.Errorf("remove member %s: %w", name, err)
		}
		return nil
	}
	return fmt.Errorf("remove member %s: %w", name, ErrNoMember)
}

// introduceTo asks a member who it is.
func (l *Log) introduceTo(ctx context.Context, member peer.Member) (greeting, error) {
	up := l.up.Load()
	if up == nil || l.link == nil {
		return greeting{}, l.notLeader()
	}
	if member.Name == l.cfg.Name {
		return l.greet(up), nil
	}
	return l.greetOne(ctx, member, l.greet(up))
}

func (l *Log) admit(ctx context.Context, member peer.Member, id raft.ServerID, role Role) error {
	err := l.ask(ctx, func(node *raft.Raft) error {
		address := raft.ServerAddress(member.Address)
		if role == Voter {
			return node.AddVoter(id, address, 0, enqueueTime).Error()
		}
		if hasVote(node, id) {
			if voters(node) == 1 {
				return applied{fmt.Errorf("%w: it is the last voter", ErrRefused)}
			}
			if err := node.DemoteVoter(id, 0, enqueueTime).Error(); err != nil {
				return err
			}
		}
		return node.AddNonvoter(id, address, 0, enqueueTime).Error()
	})
	if err != nil {
		return fmt.Errorf("add member %s: %w", member.Name, err)
	}
	return nil
}

func hasVote(node *raft.Raft, id raft.ServerID) bool {
	for _, s := range servers(node) {
		if s.ID == id {
			return s.Suffrage == raft.Voter
		}
	}
	return false
}

// keepAddress corrects this member's own address in the log whenever it leads: so a member that was
// alone can become the first of a fleet. A follower's is corrected by an operator, by Add.
func (l *Log) keepAddress(ctx context.Context, up *running) {
	for l.link != nil && ctx.Err() == nil {
		changed := l.changed.wait()
		for _, s := range servers(up.node) {
			if s.ID != up.store.id || string(s.Address) == l.cfg.Address || up.node.State() != raft.Leader {
				continue
			}
			err := l.ask(ctx, func(node *raft.Raft) error {
				return node.AddVoter(s.ID, raft.ServerAddress(l.cfg.Address), 0, enqueueTime).Error()
			})
			if err != nil {
				l.log.Warn("address not corrected", zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}
