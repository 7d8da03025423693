package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/peer"
)

// A fleet is born once, when all of its configured voters have met with nothing on their disks. The
// first of them by name, the founder, asks the others; each promises itself, on its disk, to the
// founder's identity, and to nobody else ever. When all have, the founder begins the log with the
// identities of all. From then on the log says who votes, and under which identity. A member that
// comes with an empty disk later is not in the log: its vote was on the disk that it lost.

const (
	meetMethod = "consensus/meet"
	meetPause  = 500 * time.Millisecond
	meetTime   = 2 * time.Second
)

// greeting is what members tell each other about themselves.
type greeting struct {
	ID raft.ServerID `json:"id"`
	// Empty: nothing was ever agreed on, voted for or received here.
	Empty bool `json:"empty"`
	// Voters are the configured ones.
	Voters []peer.Member `json:"voters"`
	// Promised is the founder that it has promised itself to.
	Promised raft.ServerID `json:"promised,omitempty"`
	// Fleet is who is in the log, by identity.
	Fleet []raft.ServerID `json:"fleet,omitempty"`
}

func (l *Log) greet(up *running) greeting {
	g := greeting{ID: up.store.id, Empty: up.store.empty(), Voters: byName(l.cfg.Voters), Promised: up.store.promised()}
	for _, s := range servers(up.node) {
		g.Fleet = append(g.Fleet, s.ID)
	}
	return g
}

func byName(voters []peer.Member) []peer.Member {
	sorted := slices.Clone(voters)
	slices.SortFunc(sorted, func(a, b peer.Member) int { return strings.Compare(a.Name, b.Name) })
	return sorted
}

// answerMeet tells another member about this one; a founder gets a promise with it.
func (l *Log) answerMeet(_ context.Context, from string, body []byte) ([]byte, error) {
	var theirs greeting
	if err := json.Unmarshal(body, &theirs); err != nil {
		return nil, err
	}
	if nameOf(theirs.ID) != from {
		return nil, fmt.Errorf("member %s says that it is %s", from, theirs.ID)
	}
	up := l.up.Load()
	if up == nil {
		return nil, errors.New("the log does not run yet")
	}
	mine := l.greet(up)
	founder := len(mine.Voters) > 0 && mine.Voters[0].Name == from && slices.Equal(mine.Voters, theirs.Voters)
	if founder && mine.Empty && theirs.Empty {
		if err := up.store.setPromise(theirs.ID); err != nil {
			return nil, err
		}
		mine.Promised = up.store.promised()
	}
	return json.Marshal(mine)
}

// meet asks the others until this member is in a log, and founds the fleet when that is its part.
func (l *Log) meet(ctx context.Context, up *running) {
	defer l.waiting.Store(nil)
	for l.link != nil && len(servers(up.node)) == 0 {
		mine := l.greet(up)
		answers := l.greetAll(ctx, mine)
		if ctx.Err() != nil {
			return
		}
		why := l.judgeBirth(mine, answers)
		if why == "" {
			if why = l.found(up, answers); why == "" {
				return
			}
		}
		if l.Waiting() != why {
			l.waiting.Store(&why)
			l.log.Warn("this member is in no fleet yet", zap.String("why", why))
			l.changed.fire()
		}
		changed := l.changed.wait()
		pause := time.NewTimer(meetPause)
		select {
		case <-ctx.Done():
		case <-pause.C:
		case <-changed:
		}
		pause.Stop()
	}
}

// answer is what came of asking one voter.
type answer struct {
	voter peer.Member
	greeting
	err error
}

// greetAll asks the other voters, in the order of their names.
func (l *Log) greetAll(ctx context.Context, mine greeting) []answer {
	ctx, cancel := context.WithTimeout(ctx, meetTime)
	defer cancel()
	var answers []answer
	for _, v := range mine.Voters {
		if v.Name != l.cfg.Name {
			answers = append(answers, answer{voter: v})
		}
	}
	var wg sync.WaitGroup
	for i := range answers {
		wg.Add(1)
		go func() { defer wg.Done(); answers[i].greeting, answers[i].err = l.greetOne(ctx, answers[i].voter, mine) }()
	}
	wg.Wait()
	return answers
}

func (l *Log) greetOne(ctx context.Context, to peer.Member, mine greeting) (greeting, error) {
	var theirs greeting
	body, err := json.Marshal(mine)
	if err == nil {
		body, err = l.link.Call(ctx, to, meetMethod, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &theirs)
	}
	if err == nil && nameOf(theirs.ID) != to.Name {
		err = fmt.Errorf("member %s says that it is %s", to.Name, theirs.ID)
	}
	return theirs, err
}

// judgeBirth says what this member has to wait for; empty when it may found the fleet.
func (l *Log) judgeBirth(mine greeting, answers []answer) (wait string) {
	for _, a := range answers {
		if a.err == nil && len(a.Fleet) > 0 {
			return heir(mine, a)
		}
	}
	founder := mine.Voters[0].Name
	for _, a := range answers {
		switch {
		case a.err != nil:
			return fmt.Sprintf("the fleet begins when all its voters have met, and %s does not answer: %v", a.voter, a.err)
		case !slices.Equal(a.Voters, mine.Voters):
			return fmt.Sprintf("%s is configured with other voters than this member", a.voter.Name)
		case !a.Empty:
			return fmt.Sprintf("%s has taken part in a fleet; its leader has not written yet", a.voter.Name)
		case founder == l.cfg.Name && a.Promised != mine.ID:
			return fmt.Sprintf("%s has promised itself to another founder, %s; if that fleet never began, empty the directory of %s",
				a.voter.Name, a.Promised, a.voter.Name)
		}
	}
	if founder != l.cfg.Name {
		return fmt.Sprintf("%s begins the fleet", founder)
	}
	return ""
}

// heir is what a member with an empty disk waits for when a fleet exists.
func heir(mine greeting, a answer) string {
	for _, id := range a.Fleet {
		switch {
		case id == mine.ID:
			return "the fleet knows this member; its leader has not written yet"
		case nameOf(id) == nameOf(mine.ID):
			return fmt.Sprintf("the fleet knows this member by a disk that it has no more (%s); what it had promised is lost, "+
				"so it does not vote until an operator readmits it", id)
		}
	}
	return fmt.Sprintf("the fleet of %s exists, and this member is to be added to it", a.voter.Name)
}

// found begins the log with all voters; it says what stood in the way.
func (l *Log) found(up *running, answers []answer) (why string) {
	var configuration raft.Configuration
	for _, v := range byName(l.cfg.Voters) {
		id := up.store.id
		for _, a := range answers {
			if a.voter == v {
				id = a.ID
			}
		}
		configuration.Servers = append(configuration.Servers, raft.Server{ID: id, Address: raft.ServerAddress(v.Address)})
	}
	err := up.node.BootstrapCluster(configuration).Error()
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Sprintf("the fleet cannot begin: %v", err)
	}
	l.log.Info("the fleet begins", zap.Int("voters", len(configuration.Servers)))
	return ""
}
