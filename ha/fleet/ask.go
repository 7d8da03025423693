package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/consensus"
	"github.com/cstproxy/cstproxy/ha/peer"
)

// ErrNoLeader says that nobody led for as long as was waited: too few voters are up, or reach each
// other. Nothing was begun.
var ErrNoLeader = errors.New("no member leads the fleet")

const (
	commandMethod  = "fleet/command"
	evidenceMethod = "fleet/evidence"
	logMethod      = "fleet/log"
	membersMethod  = "fleet/members"
	voterMethod    = "fleet/voter"
	adoptMethod    = "fleet/adopt"
	amendMethod    = "fleet/amend"

	answerVersion = 1
	// maxAsked bounds the questions that this member puts to the leader at once. With the reports
	// there are fewer than a connection carries: an operator's screen must never hold up a lease.
	maxAsked = 4
	// questionTime bounds a question about what the leader knows, orderTime an order: it may have to
	// outlast an election.
	questionTime = 3 * time.Second
	orderTime    = 15 * time.Second
	// askAgain is the pause before a question is repeated, unless the record changes first.
	askAgain = 200 * time.Millisecond
)

// answer is what the leader says: a value of its own for each method, or a Failure.
type answer struct {
	Version int             `json:"version"`
	Failure *failure        `json:"failure,omitempty"`
	Value   json.RawMessage `json:"value,omitempty"`
}

// failure is an error that keeps its kind on the way.
type failure struct {
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
}

func (e *failure) Error() string { return e.Text }

// Unwrap is the error by which callers know the kind.
func (e *failure) Unwrap() error {
	for _, k := range kinds() {
		if k.name == e.Kind {
			return k.is
		}
	}
	return nil
}

type kind struct {
	name string
	is   error
}

func kinds() []kind {
	return []kind{{"unknown", ha.ErrUnknown}, {"policy", ha.ErrPolicy}, {"refused", ha.ErrRefused}, {"unknown", consensus.ErrNoMember}, {"refused", consensus.ErrRefused},
		{"not leader", consensus.ErrNotLeader}, {"outcome unknown", consensus.ErrUnknownOutcome}, {"expired", context.DeadlineExceeded}}
}

func failureOf(err error) *failure {
	f := &failure{Text: err.Error()}
	for _, k := range kinds() {
		if errors.Is(err, k.is) {
			f.Kind = k.name
			break
		}
	}
	return f
}

// question is a method of the leader. Each may be asked twice: an answer can be lost on its way.
type question func(ctx context.Context, body []byte) ([]byte, error)

// on makes a question of a function.
func on[Q, A any](do func(context.Context, Q) (A, error)) question {
	return func(ctx context.Context, body []byte) ([]byte, error) {
		a := answer{Version: answerVersion}
		var q Q
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, fmt.Errorf("read a question: %w", err)
		}
		value, err := do(ctx, q)
		if err == nil {
			a.Value, err = json.Marshal(value)
		}
		if err != nil {
			a.Failure = failureOf(err)
		}
		return json.Marshal(a)
	}
}

// questions are what a leader answers, by method.
func (f *Fleet) questions() map[string]question {
	return map[string]question{
		commandMethod: on(f.command), evidenceMethod: on(f.evidence), logMethod: on(f.taskLog), membersMethod: on(f.memberList),
		voterMethod: on(f.voter), adoptMethod: on(f.adopt), amendMethod: on(f.amended),
	}
}

// hear lets other members put the questions.
func (f *Fleet) hear() {
	for method, do := range f.questions() {
		f.parts.Link.Handle(method, func(ctx context.Context, from string, body []byte) ([]byte, error) {
			if f.role(from) == "" {
				return nil, fmt.Errorf("%w: %s", errStranger, from)
			}
			return do(ctx, body)
		})
	}
}

// ask puts a question to whoever leads, and again when nobody does or the answer is lost, until ctx
// ends. into takes the value.
func (f *Fleet) ask(ctx context.Context, method string, q, into any) error {
	select {
	case f.asking <- struct{}{}: // without a look at ctx: one that has ended has better reasons
	default:
		select {
		case f.asking <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("too much is being asked of the leader: %w", ctx.Err())
		}
	}
	defer func() { <-f.asking }()
	body, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	var lost attempts
	for {
		changed := f.parts.Log.Changed()
		text, err := f.askOnce(ctx, method, body)
		var a answer
		if err == nil {
			if err = json.Unmarshal(text, &a); err == nil && a.Version != answerVersion {
				err = fmt.Errorf("the leader answers in version %d, and this member reads version %d", a.Version, answerVersion)
			}
			switch {
			case err != nil:
				return fmt.Errorf("%s: %w", method, err)
			case a.Failure == nil:
				return json.Unmarshal(a.Value, into)
			case !errors.Is(a.Failure, consensus.ErrNotLeader) && !errors.Is(a.Failure, consensus.ErrUnknownOutcome):
				return a.Failure
			}
			err = a.Failure
		}
		lost.note(err)
		pause := time.NewTimer(askAgain)
		select {
		case <-changed:
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return f.unanswered(method, lost)
		}
		pause.Stop()
	}
}

// askOnce puts a question to the member that this one takes for the leader, which may be itself.
func (f *Fleet) askOnce(ctx context.Context, method string, body []byte) ([]byte, error) {
	leader := f.parts.Log.Leader()
	switch {
	case f.alone() || leader.Name == f.cfg.Name:
		return f.questions()[method](ctx, body)
	case leader.Name == "":
		return nil, consensus.ErrNotLeader
	}
	// One attempt leaves time for another: the leader may just have lost its power.
	ctx, cancel := context.WithTimeout(ctx, orderTime/3)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() { defer cancel(); f.whileLeads(ctx, leader) })
	return f.parts.Link.Call(ctx, leader, method, body)
}

// whileLeads returns when this member takes somebody else for the leader, or when ctx ends.
func (f *Fleet) whileLeads(ctx context.Context, leader peer.Member) {
	for {
		changed := f.parts.Log.Changed()
		if now := f.parts.Log.Leader(); now.Name != "" && now != leader {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// attempts are those at a question that have failed: open, one that may have reached a leader;
// refused, what a member said that does not take the question; unsent, one that has reached nobody.
type attempts struct{ open, refused, unsent error }

func (a *attempts) note(err error) {
	var refused *peer.RefusedError
	switch {
	case errors.As(err, &refused):
		a.refused = err
	case errors.Is(err, peer.ErrNotSent):
		a.unsent = err
	case !errors.Is(err, consensus.ErrNotLeader):
		a.open = err
	}
}

// unanswered is the error of a question that nobody has answered.
func (f *Fleet) unanswered(method string, lost attempts) error {
	order, see := method == commandMethod || method == voterMethod || method == adoptMethod || method == amendMethod, "show_task"
	if method == amendMethod {
		see = "change_meta --history"
	}
	switch {
	case lost.open != nil && order:
		return fmt.Errorf("%w: the leader may have taken the order and not have been able to answer: %w; see `cstproxy ctl %s`", consensus.ErrUnknownOutcome, lost.open, see)
	case lost.open != nil:
		return fmt.Errorf("%w that answers: %w", ErrNoLeader, lost.open)
	case lost.refused != nil:
		return fmt.Errorf("%w that takes this: %w", ErrNoLeader, lost.refused)
	}
	why := "a majority of the voters must be up and reach each other; see `cstproxy ctl members`"
	if waiting := f.parts.Log.Waiting(); waiting != "" {
		why = "this member waits: " + waiting
	}
	if lost.unsent != nil {
		why += fmt.Sprintf("; the last leader cannot be reached: %v", lost.unsent)
	}
	if trouble := f.parts.Log.Trouble(); trouble != "" {
		why = "this member's disk takes no writes: " + trouble
	}
	return fmt.Errorf("%w: %s", ErrNoLeader, why)
}

// throne is the present reign, waited for while this member was elected and is not ready.
func (f *Fleet) throne(ctx context.Context) (*reign, error) {
	if err := f.awaitReign(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reign == nil {
		return nil, consensus.ErrNotLeader
	}
	return f.reign, nil
}

// seatOf is the leader's seat of a cluster.
func (f *Fleet) seatOf(ctx context.Context, cluster string) (*seat, error) {
	r, err := f.throne(ctx)
	if err != nil {
		return nil, err
	}
	if s := r.seats[cluster]; s != nil { // never changed once the reign is set
		return s, nil
	}
	return nil, unknownCluster(cluster)
}

// configured says whether this member knows the cluster; an order for another one need not travel.
func (f *Fleet) configured(cluster string) error {
	for _, c := range f.clusters {
		if c.Name == cluster {
			return nil
		}
	}
	return unknownCluster(cluster)
}

func unknownCluster(name string) error {
	return fmt.Errorf("there is no cluster %q that this fleet operates: %w", name, ha.ErrUnknown)
}
