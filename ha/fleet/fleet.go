// Package fleet is a member among members. It joins the parts of the control plane: the member's side
// reports what it sees to whoever leads, holds the leases that it is granted and puts into force what
// the log says; the leader's side, while this member leads, assembles the Picture of each cluster,
// has package decide look at it, and commits or carries out what that says. Everything that must
// survive a member is in the log; what is here can be lost at any moment.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/consensus"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/operation"
	"github.com/cstproxy/cstproxy/ha/peer"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Config is what a Fleet obeys.
type Config struct {
	// Name is this member's.
	Name string
	// Witness has no data path: it votes and sees, and asks for no lease.
	Witness bool
	// Terms are the leases', the same for all members. A third of their Length is the longest that
	// passes between two reports.
	Terms lease.Terms
	// Evidence is how many of the last decisions are kept for each cluster.
	Evidence int
	Clusters []Cluster
}

// Cluster is what does not change of one while the process runs.
type Cluster struct {
	Name string
	// Policy's Lease and Drift are set by New, from Config.Terms.
	Policy decide.Policy
	// Nodes are all configured, by rising id, without facts.
	Nodes   []decide.Node
	Servers Servers
}

// Servers are the ways to one cluster's servers and to this member's data plane. They are called by
// several goroutines at once.
type Servers struct {
	// Look says what this member sees of the nodes. It answers from memory.
	Look func() []Seen
	// Rule puts a ruling in force before it returns.
	Rule func(ha.Ruling)
	// Open counts this member's open write transactions; nil where there is no data path.
	Open func() int
	// Prove completes a proof that begins now: it has the epoch's primary commit a heartbeat, and asks
	// who has flushed it, until ctx ends or the proof holds. nil: this member cannot, and without a
	// leader it stops to write when its lease lapses.
	Prove func(ctx context.Context, e record.Epoch, p lease.Proof) lease.Proof
	// Do carries out an action and waits for its end, or ctx's; see operation.Executor. fleet is the
	// name by which the hosts keep their ratchets.
	Do func(ctx context.Context, fleet string, a decide.Action) (decide.Result, operation.Report)
	// Stamps are what the hosts' ratchets remember, of all fleets, and a sentence for each host that
	// could not be read. Before its birth a fleet looks there, lest it takes servers that another one
	// operates. nil: no host can be read.
	Stamps func(ctx context.Context) ([]Stamp, []string)
	// Amend puts the values of policies that the log has changed in force before it returns: all of
	// them, each time. nil: nothing here obeys policies.
	Amend func(values map[string]string)
	// Check says the values of set as a file would have them, or why they cannot be in force beside those
	// kept: ha.ErrPolicy. nil: none can.
	Check func(kept, set map[string]string) (map[string]string, error)
	// Reign runs while this member leads a fleet that has its name, until ctx ends with the leadership of
	// that term: what a leader keeps in order beside its operations. nil: nothing.
	Reign func(ctx context.Context, term uint64)
	// Addresses are where a leader has seen the virtual addresses. It answers from memory. nil: there are
	// none.
	Addresses func() []Holding
}

// Parts are run by Run, and are of use to others meanwhile. A nil Link makes a member alone: a fleet
// of one, which needs no lease.
type Parts struct {
	Log  *consensus.Log
	Link *peer.Link
}

// Fleet is this member's part in its fleet. Its methods may be called from any goroutine.
type Fleet struct {
	cfg      Config
	parts    Parts
	clusters []*cluster
	log      *zap.Logger
	observed chan struct{}

	following sync.Mutex // held while a newer record is put into force
	applied   uint64     // the entry that made the one in force
	ruled     bool       // one is
	caughtUp  bool       // this member has led, and so knew all that had been committed

	mu         sync.Mutex               // guards what follows, and each cluster's holder and lease
	number     uint64                   // of the last report
	frontUntil time.Duration            // see front
	out        time.Duration            // when this member was told that it is in the log no more; 0: it was not
	reign      *reign                   // nil while this member does not lead
	crowned    chan struct{}            // closed when reign is set
	met        map[string]time.Duration // members of the log, and when each was last seen there
	writers    map[string]*writer       // of the logs of operations, by cluster
	lines      chan struct{}            // closed when one of them has a new line
	// unfounded is why the fleet that this member leads has no name yet.
	unfounded string

	born   time.Duration
	asking chan struct{} // has a place for each question to the leader
}

// cluster is the member's side of one.
type cluster struct {
	Cluster
	holder *lease.Holder
	lease  *topology.Lease // of holder's epoch
	epoch  record.Epoch    // that holder goes by
	// begun is when epoch began, as this member saw it or was told; 0: nobody knows. abreast: a leader has
	// answered while it went by this epoch, too.
	begun   time.Duration
	abreast bool
	// amended is the version of the policies in force; following guards it.
	amended uint64
	held    string // why writes are held; empty when they are not
	told    map[topology.NodeID]look
	drains  record.OperationID
	open    int // transactions, as reported last; only takePart uses it
}

// Now is the clock of all durations here, of package decide's and package lease's: CLOCK_BOOTTIME,
// which goes on while the machine sleeps.
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0 // the kernel has had it since 2.6.39; at 0 no lease is granted, and none that is held ends later
	}
	return time.Duration(t.Nano())
}

// New returns a member that does nothing yet. With a link, New adds its handler to it.
func New(cfg Config, parts Parts, log *zap.Logger) (*Fleet, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if Now() == 0 {
		return nil, errors.New("this system has no CLOCK_BOOTTIME, by which leases are kept")
	}
	f := &Fleet{cfg: cfg, parts: parts, log: log.Named("fleet"), observed: make(chan struct{}, 1), crowned: make(chan struct{}),
		met: map[string]time.Duration{}, writers: map[string]*writer{}, lines: make(chan struct{}), born: Now(), asking: make(chan struct{}, maxAsked)}
	birth := rand.Uint64()
	for _, c := range cfg.Clusters {
		c.Policy.Lease, c.Policy.Drift = cfg.Terms.Length, cfg.Terms.Drift
		f.writers[c.Name] = &writer{logs: map[record.OperationID]*taskLog{}}
		f.clusters = append(f.clusters, &cluster{Cluster: c, holder: lease.NewHolder(cfg.Terms, birth), lease: new(topology.Lease)})
	}
	if parts.Link != nil {
		parts.Link.Handle(reportMethod, f.answer)
		parts.Link.Handle(retireMethod, f.retired)
		f.hear()
	}
	return f, nil
}

func (c *Config) validate() error {
	switch {
	case c.Terms.Length <= 0 || c.Terms.Drift < 0 || c.Terms.Drift >= 1:
		return fmt.Errorf("leases of %v with a drift of %v are none", c.Terms.Length, c.Terms.Drift)
	case c.Evidence < 1:
		return errors.New("at least one decision must be kept")
	case len(c.Clusters) > maxClusters:
		return fmt.Errorf("%d clusters are more than the %d that a report has room for", len(c.Clusters), maxClusters)
	}
	names := map[string]bool{}
	for _, k := range c.Clusters {
		switch {
		case k.Name == "" || names[k.Name]:
			return fmt.Errorf("cluster %q must have a name of its own", k.Name)
		case len(k.Nodes) > maxNodes:
			return fmt.Errorf("cluster %s: %d nodes are more than the %d that a report has room for", k.Name, len(k.Nodes), maxNodes)
		}
		names[k.Name] = true
	}
	return nil
}

func (f *Fleet) alone() bool { return f.parts.Link == nil }

// Observed says that something was seen of a server of the cluster. It never blocks.
func (f *Fleet) Observed(string) {
	select {
	case f.observed <- struct{}{}:
	default:
	}
}

// Run takes part until ctx ends, and runs the parts: the link as long as the log needs it, and the log
// until this member has stopped to lead. An error is one of the parts'.
func (f *Fleet) Run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	linking, unlink := context.WithCancel(context.WithoutCancel(ctx))
	defer unlink()
	logging, unlog := context.WithCancel(linking)
	defer unlog()
	var link, log, own errgroup.Group
	if !f.alone() {
		link.Go(func() error { defer end(); return f.parts.Link.Run(linking) })
	}
	log.Go(func() error { defer end(); return f.parts.Log.Run(logging) })
	own.Go(func() error { defer end(); return f.parts.Log.Lead(ctx, f.lead) })
	own.Go(func() error { defer end(); f.takePart(ctx); return nil })
	errs := []error{own.Wait()}
	unlog()
	errs = append(errs, log.Wait())
	unlink()
	return errors.Join(append(errs, link.Wait())...)
}
