package consensus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// hang has a write stand in the disk until release.
func hang(t *testing.T, s *store) (release func()) {
	t.Helper()
	began, end, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		s.writing.Lock()
		defer s.writing.Unlock()
		ended <- s.commit(func(*bbolt.Tx) error { close(began); <-end; return nil })
	}()
	<-began
	var once sync.Once
	release = func() { once.Do(func() { close(end); must(t, <-ended) }) }
	t.Cleanup(release) // before the members are ended
	return release
}

// mute waits until a member has noticed that its disk hangs.
func (f *fleet) mute(n *node) {
	f.t.Helper()
	f.await(func() error {
		if n.log.Trouble() == "" || n.log.Leader() == n.member() {
			return fmt.Errorf("%s: trouble %q, follows %q", n.name, n.log.Trouble(), n.log.Leader().Name)
		}
		return nil
	})
}

func TestALeaderWhoseDiskHangsIsReplaced(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	old := f.propose(founding("f"), f.members...)
	rest := f.others(old)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	rules, ruled, led := make(chan struct{}, 20), make(chan struct{}, 20), make(chan error, 1)
	go func() {
		led <- old.log.Lead(ctx, func(reign context.Context, _ uint64) error {
			rules <- struct{}{}
			<-reign.Done()
			ruled <- struct{}{}
			return reign.Err()
		})
	}()
	<-rules
	release := hang(t, old.log.up.Load().store)
	lost := make(chan error, 1)
	go func() { lost <- old.log.Propose(ctx, froze("lost")) }()
	f.mute(old)
	<-ruled // while the write stands
	now := f.propose(froze("kept"), rest...)
	if err := old.log.VerifyQuorum(ctx); !errors.Is(err, ErrNotLeader) {
		t.Errorf("the old leader is confirmed: %v", err)
	}
	if err := old.log.Propose(ctx, froze("late")); !errors.Is(err, ErrNotLeader) {
		t.Errorf("the old leader proposes: %v", err)
	}
	release()
	if err := <-lost; !errors.Is(err, ErrUnknownOutcome) && !errors.Is(err, ErrNotLeader) {
		t.Errorf("the proposal under way: %v", err)
	}
	f.holds("kept", f.members...)
	f.await(func() error {
		if why := old.log.Trouble(); why != "" {
			return errors.New(why)
		}
		return nil
	})
	f.leader(f.members...)
	now.down() // the one that hung is needed
	f.propose(froze("with it"), f.others(now)...)
	cancel()
	must(t, <-led)
}

// With two voters nobody can be elected while one of them hangs; afterwards one of them leads again, in whatever term.
func TestALeaderThatNobodyReplacesLeadsWhenItsDiskAnswers(t *testing.T) {
	f := newFleet(t, "m1", "m2")
	f.start()
	leader := f.propose(founding("f"), f.members...)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	reigns, led := make(chan string, 20), make(chan error, 2)
	for _, n := range f.members {
		log, name := n.log, n.name
		go func() {
			led <- log.Lead(ctx, func(reign context.Context, _ uint64) error {
				reigns <- name
				<-reign.Done()
				return reign.Err()
			})
		}()
	}
	<-reigns
	release := hang(t, leader.log.up.Load().store)
	f.mute(leader)
	release()
	<-reigns
	f.propose(froze("on"), f.members...)
	f.holds("on", f.members...)
	cancel()
	for range f.members {
		must(t, <-led)
	}
}

func TestAFollowerWhoseDiskHangsGoesOnToHearItsLeader(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	f.propose(founding("f"), f.members...)
	leader := f.propose(froze("one"), f.members...)
	hung := f.others(leader)[0]
	f.holds("one", f.members...)
	release := hang(t, hung.log.up.Load().store)
	f.mute(hung)
	term := leader.log.Term()
	for i := range 5 {
		must(t, leader.log.Propose(within(t), froze(fmt.Sprint(i))))
	}
	if got := hung.log.Leader(); leader.log.Term() == term && got != leader.member() {
		t.Errorf("it follows %q", got.Name)
	}
	release()
	f.holds("4", f.members...)
}

func TestAMemberAloneLeadsHoweverSlowItsDisk(t *testing.T) {
	cfg := DefaultConfig("m1")
	cfg.Dir = t.TempDir()
	l := alone(t, cfg)
	awaitLeader(t, l)
	release := hang(t, l.up.Load().store)
	for ctx := within(t); ; {
		changed := l.Changed()
		if l.Trouble() != "" {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("it does not say that its disk hangs")
		}
	}
	if err := l.VerifyQuorum(within(t)); err != nil || l.Leader().Name != "m1" {
		t.Errorf("%q leads, %v", l.Leader().Name, err)
	}
	release()
	must(t, l.Propose(within(t), founding("f")))
	if why := l.Trouble(); why != "" {
		t.Error(why)
	}
}

// freeze has every write to the disk stand in the kernel.
func (d *loopDisk) freeze() (thaw func()) {
	d.t.Helper()
	f, err := os.Open(d.path)
	must(d.t, err)
	const freeze, unfreeze = 0xc0045877, 0xc0045878 // FIFREEZE, FITHAW of linux/fs.h
	if err := unix.IoctlSetInt(int(f.Fd()), freeze, 0); err != nil {
		f.Close()
		d.t.Skipf("this kernel cannot freeze an ext4: %v", err)
	}
	thawed := false
	thaw = func() {
		if !thawed {
			thawed = true
			must(d.t, unix.IoctlSetInt(int(f.Fd()), unfreeze, 0))
			f.Close()
		}
	}
	d.t.Cleanup(thaw)
	return thaw
}

// A process that is told to end does so while its disk hangs, as far as the kernel lets it.
func TestALogEndsWhileItsDiskHangs(t *testing.T) {
	disks := []*loopDisk{newLoopDisk(t), newLoopDisk(t), newLoopDisk(t)} // first: they are unmounted when nobody uses them
	f := newFleet(t, "m1", "m2", "m3")
	for i, n := range f.members {
		n.cfg.Dir = filepath.Join(disks[i].path, "fleet")
	}
	f.start()
	old := f.propose(founding("f"), f.members...)
	thaw := disks[old.at].freeze()
	ctx, cancel := context.WithCancel(within(t))
	proposed := make(chan error, 1)
	go func() { proposed <- old.log.Propose(ctx, froze("lost")) }()
	f.mute(old)
	if err := old.stop(); !errors.Is(err, errHangs) {
		t.Errorf("it ends with %v", err)
	}
	cancel()
	<-proposed
	f.propose(froze("kept"), f.others(old)...)
	thaw()
	f.await(func() error { // what was left behind ends, too
		db, err := openFile(old.cfg.Dir)
		if err == nil {
			err = db.Close()
		}
		return err
	})
	old.stop, old.log, old.link = nil, nil, nil
	old.start()
	f.holds("kept", f.members...)
}

func TestLeadRulesInEachReign(t *testing.T) {
	cfg := DefaultConfig("m1")
	l := alone(t, cfg)
	awaitLeader(t, l)
	ctx, cancel := context.WithCancel(within(t))
	terms, led := make(chan uint64), make(chan error, 1)
	go func() {
		led <- l.Lead(ctx, func(reign context.Context, term uint64) error {
			terms <- term
			<-reign.Done()
			return reign.Err()
		})
	}()
	term := <-terms
	up := l.up.Load()
	during, _, leave := l.reign.during(ctx)
	l.crown(up) // what was said twice, or late
	if during.Err() != nil {
		t.Error("the same reign has ended")
	}
	leave()
	l.reign.end()
	l.crown(up)
	l.changed.fire()
	if again := <-terms; again != term {
		t.Errorf("term %d after %d", again, term)
	}
	cancel()
	must(t, <-led)
}

func TestAFullDiskIsTrustedOnlyWhenTheFileShowsNothing(t *testing.T) {
	s := open(t, t.TempDir())
	must(t, s.StoreLog(entry(1, 1)))
	var number int
	s.writing.Lock()
	err := s.commit(func(tx *bbolt.Tx) error { number = tx.ID(); return unix.ENOSPC })
	s.writing.Unlock()
	if !full(err) || s.broken != nil {
		t.Errorf("nothing was written, and it is %v, broken by %v", err, s.broken)
	}
	if err := s.certain(unix.ENOSPC, number); !full(err) {
		t.Errorf("transaction %d is not there: %v", number, err)
	}
	must(t, s.StoreLog(entry(2, 1))) // takes the same number
	if err := s.certain(unix.ENOSPC, number); full(err) {
		t.Errorf("transaction %d is there: %v", number, err)
	}
}
