package consensus

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

const (
	// ext4Shutdown is EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32) of linux/fs/ext4/ext4.h.
	ext4Shutdown = 0x8004587d
	// noLogFlush is EXT4_GOING_FLAGS_NOLOGFLUSH: what is only in memory is lost, as by a power cut.
	noLogFlush = 2
)

// loopDisk is an ext4 in a file, whose power can be cut.
type loopDisk struct {
	t           *testing.T
	image, path string
}

func newLoopDisk(t *testing.T) *loopDisk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("cutting the power of a disk needs root, to mount one")
	}
	dir := t.TempDir()
	d := &loopDisk{t: t, image: filepath.Join(dir, "image"), path: filepath.Join(dir, "disk")}
	must(t, os.Mkdir(d.path, 0o700))
	must(t, os.WriteFile(d.image, nil, 0o600))
	must(t, os.Truncate(d.image, 64<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", d.image).CombinedOutput(); err != nil {
		t.Skipf("no ext4 can be made here: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", d.image, d.path).CombinedOutput(); err != nil {
		t.Skipf("no loop mounts here: %v: %s", err, out)
	}
	t.Cleanup(func() { unix.Unmount(d.path, 0) })
	return d
}

// cutPower loses what is not on the disk; nothing can be written from then on.
func (d *loopDisk) cutPower() {
	f, err := os.Open(d.path)
	must(d.t, err)
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush); err != nil {
		d.t.Skipf("this kernel cannot shut an ext4 down: %v", err)
	}
}

func (d *loopDisk) remount() {
	d.t.Helper()
	must(d.t, unix.Unmount(d.path, 0))
	if out, err := exec.Command("mount", "-o", "loop", d.image, d.path).CombinedOutput(); err != nil {
		d.t.Fatalf("%v: %s", err, out)
	}
}

func TestEveryAcknowledgedWriteSurvivesAPowerCut(t *testing.T) {
	d := newLoopDisk(t)
	for round := range 4 {
		dir := filepath.Join(d.path, fmt.Sprint(round))
		acknowledged, values := writeUntilPowerCut(t, d, dir, synced)
		d.remount()
		s := open(t, dir)
		for i := uint64(1); i <= acknowledged; i++ {
			var l raft.Log
			if err := s.GetLog(i, &l); err != nil || l.Term != i {
				t.Fatalf("round %d: entry %d of %d: %+v, %v", round, i, acknowledged, l, err)
			}
		}
		if v, err := s.GetUint64([]byte("vote")); values > 0 && (err != nil || v < values) {
			t.Errorf("round %d: value %d, want %d, %v", round, v, values, err)
		}
		must(t, s.StoreLog(entry(acknowledged+1, 1)))
		must(t, s.close())
		t.Logf("round %d: %d entries, %d values", round, acknowledged, values)
	}
}

// Without the fsyncs the same test finds losses; so it would notice if they were switched off.
func TestAPowerCutLosesWhatIsNotSynced(t *testing.T) {
	d := newLoopDisk(t)
	dir := filepath.Join(d.path, "x")
	acknowledged, _ := writeUntilPowerCut(t, d, dir, unsynced)
	d.remount()
	s, err := openStore(dir, "m1", nil, zap.NewNop())
	if err != nil {
		return // not even the file is whole
	}
	defer s.close()
	if last, err := s.LastIndex(); err == nil && last >= acknowledged {
		t.Errorf("all of %d entries are there without a sync", acknowledged)
	}
}

type syncing int

const (
	synced syncing = iota
	unsynced
)

// writeUntilPowerCut writes entries and values at the same time and cuts the power in the middle.
// It returns the newest of each whose write was acknowledged.
func writeUntilPowerCut(t *testing.T, d *loopDisk, dir string, how syncing) (entries, values uint64) {
	t.Helper()
	s, err := openStore(dir, "m1", make(chan struct{}), zap.NewNop())
	must(t, err)
	s.db.NoSync = how == unsynced
	var stored, set atomic.Uint64
	var wg sync.WaitGroup
	wg.Add(2)
	go func() {
		defer wg.Done()
		for i := uint64(1); s.StoreLog(entry(i, i)) == nil; i++ {
			stored.Store(i)
		}
	}()
	go func() {
		defer wg.Done()
		for i := uint64(1); s.SetUint64([]byte("vote"), i) == nil; i++ {
			set.Store(i)
		}
	}()
	for end := time.Now().Add(patience); stored.Load() < 60 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	d.cutPower()
	if how == unsynced { // writes go on in memory
		s.writing.Lock()
		s.broken = errors.New("enough")
		s.writing.Unlock()
	}
	wg.Wait()
	if s.trouble.Load() == nil && how == synced {
		t.Error("nothing was noticed")
	}
	s.close()
	return stored.Load(), set.Load()
}

// smallDisk is a tmpfs of a few pages.
func smallDisk(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("a disk that can be filled needs root, to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fill leaves no space, and returns what makes it again.
func fill(t testing.TB, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !full(err) {
		t.Fatal(err)
	}
	return func() { must(t, os.Remove(path)) }
}

func TestAFullDiskCostsAVoteAndNoProcess(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	for _, n := range f.members {
		n.cfg.Dir = smallDisk(t)
	}
	f.start()
	leader := f.propose(founding("f"), f.members...)
	free := fill(t, leader.cfg.Dir)
	f.await(func() error { // until the log needs a page that is not there
		for _, n := range f.members { // one of them leads
			n.log.Propose(within(t), froze(fmt.Sprint(make([]byte, 4000))))
		}
		if leader.log.Trouble() == "" {
			return errors.New("there is still space")
		}
		return nil
	})
	rest := f.others(leader)
	f.propose(froze("without it"), rest...)
	free()
	f.holds("without it", f.members...)
	f.await(func() error {
		if why := leader.log.Trouble(); why != "" {
			return errors.New(why)
		}
		return nil
	})
	down := rest[0]
	down.down()
	f.leader(f.others(down)...) // its vote counts again
}

func TestATermWaitsForTheDiskAndEndsWithTheLog(t *testing.T) {
	dir := smallDisk(t)
	stopping := make(chan struct{})
	s, err := openStore(dir, "m1", stopping, zap.NewNop())
	must(t, err)
	defer s.close()
	fill(t, dir)
	var failed error
	for i := uint64(1); failed == nil; i++ {
		failed = s.StoreLog(&raft.Log{Index: i, Data: make([]byte, 4000)})
	}
	if !full(failed) {
		t.Fatalf("filled: %v", failed)
	}
	filler := make([]byte, 64<<10)
	if err := s.Set([]byte("LastVoteCand"), filler); err == nil {
		t.Fatal("a vote was kept on a full disk")
	}
	done := make(chan error, 1)
	go func() { done <- s.SetUint64([]byte(termKey), 5) }()
	select {
	case err := <-done: // the page that it needs was free after all
		must(t, err)
	case <-time.After(100 * time.Millisecond):
		close(stopping)
		must(t, <-done)
	}
	if _, err := s.Get([]byte("LastVoteCand")); err == nil {
		t.Error("what is not on disk is shown")
	}
}

func TestADiskThatFailsIsNotTrustedAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.StoreLog(entry(1, 1)))
	s.writing.Lock()
	err := s.commit(func(*bbolt.Tx) error { return unix.EIO })
	s.writing.Unlock()
	if !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	if err := s.StoreLog(entry(2, 1)); !errors.Is(err, unix.EIO) {
		t.Errorf("written after a failure: %v", err)
	}
	if last, err := s.LastIndex(); err != nil || last != 1 {
		t.Errorf("last %d, %v", last, err)
	}
	s = open(t, t.TempDir())
	s.writing.Lock()
	err = s.commit(func(*bbolt.Tx) error { panic("page 7 already freed") })
	s.writing.Unlock()
	if err == nil || s.StoreLog(entry(1, 1)) == nil || s.close() != nil {
		t.Errorf("after a panic below: %v", err)
	}
}
