package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/cstproxy/cstproxy/ha/peer"
)

const confirmMethod = "consensus/confirm"

// errNoQuorum: a majority did not answer in time.
var errNoQuorum = errors.New("no majority of the voters has confirmed this leader")

// question is what a leader asks a voter.
type question struct {
	Term uint64        `json:"term"`
	You  raft.ServerID `json:"you"`
}

type confirmation struct {
	Term uint64 `json:"term"`
}

// rounds numbers the rounds of confirmation. A round serves everybody who asked before it began.
type rounds struct {
	turn chan struct{} // held during a round

	mu        sync.Mutex
	begun     uint64
	confirmed uint64 // the newest that succeeded
}

// after returns when a round has succeeded that began after the call.
func (r *rounds) after(ctx context.Context, round func(context.Context) error) error {
	r.mu.Lock()
	asked := r.begun
	r.mu.Unlock()
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errNoQuorum, ctx.Err())
	}
	r.mu.Lock()
	if r.confirmed > asked { // somebody else's
		r.mu.Unlock()
		return nil
	}
	r.begun++
	number := r.begun
	r.mu.Unlock()
	if err := round(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.confirmed = number
	return nil
}

// VerifyQuorum is nil when, at some moment after the call, this member led, and a majority of the
// voters, asked after the call, knew of no newer term. So no other member had been elected when it
// was called, nor had committed anything that this one does not know.
//
// Raft's own VerifyLeader does not promise that: it counts answers to heartbeats that were sent
// before it was asked.
func (l *Log) VerifyQuorum(ctx context.Context) error { return l.rounds.after(ctx, l.confirm) }

// confirm is one round.
func (l *Log) confirm(ctx context.Context) error {
	up := l.up.Load()
	if up == nil {
		return l.notLeader()
	}
	term, ok := l.leading(up)
	if !ok {
		return l.notLeader()
	}
	others, votes, need := electorate(servers(up.node), up.store.id)
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Election)
	defer cancel()
	answers := make(chan uint64, len(others))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // before the waiting: nobody needs the rest of the answers
	for _, voter := range others {
		wg.Add(1)
		go func() { defer wg.Done(); l.confirmBy(ctx, voter, term, answers) }()
	}
	for left := len(others); votes < need; left-- {
		if left == 0 {
			return errNoQuorum
		}
		select {
		case newest := <-answers:
			if newest > term {
				return fmt.Errorf("a voter knows of term %d: %w", newest, l.notLeader())
			}
			if newest > 0 {
				votes++
			}
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errNoQuorum, ctx.Err())
		}
	}
	if now, ok := l.leading(up); !ok || now != term {
		return l.notLeader()
	}
	return nil
}

// electorate is the other voters, this member's own vote, and how many make a majority.
func electorate(all []raft.Server, own raft.ServerID) (others []raft.Server, votes, need int) {
	total := 0
	for _, s := range all {
		switch {
		case s.Suffrage != raft.Voter:
			continue
		case s.ID == own:
			votes++
		default:
			others = append(others, s)
		}
		total++
	}
	return others, votes, total/2 + 1
}

// confirmBy answers with the voter's term; 0 when it gave none.
func (l *Log) confirmBy(ctx context.Context, voter raft.Server, term uint64, answers chan<- uint64) {
	var c confirmation
	body, err := json.Marshal(question{term, voter.ID})
	if err == nil {
		to := peer.Member{Name: nameOf(voter.ID), Address: string(voter.Address)}
		body, err = l.link.Call(ctx, to, confirmMethod, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &c)
	}
	if err != nil {
		c.Term = 0
	}
	answers <- c.Term
}

// answerConfirm says which term this voter has reached. Its term is on disk before raft shows it,
// and raft shows it before it votes in it: so up to now it has not voted in a newer one.
func (l *Log) answerConfirm(_ context.Context, _ string, body []byte) ([]byte, error) {
	var q question
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, err
	}
	up := l.up.Load()
	if up == nil {
		return nil, errors.New("the log does not run")
	}
	if q.You != up.store.id {
		return nil, fmt.Errorf("this is %s, not %s", up.store.id, q.You)
	}
	return json.Marshal(confirmation{up.node.CurrentTerm()})
}
