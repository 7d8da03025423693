package e2e

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"testing"
)

// The primary's disk hangs: sessions answer what is in memory, nothing is committed any more. What was on
// its way to the disk is told to no client when the disk goes on.
func TestAPrimaryWhoseDiskHangsIsReplaced(t *testing.T) {
	l := New(t, Options{Hosts: []string{"m1", "m2", "m3", "c1"}})
	hosts := []*Host{l.Host("m1"), l.Host("m2"), l.Host("m3")}
	nodes := l.Postgres(nil, hosts...)
	hung := nodes[0]
	disk := hung.ownDisk(t)
	f := newFleet(l, Layout{Members: hosts, Nodes: nodes})
	load := usual(f.way(f.members[1]))
	load.Readers = 2
	s := enact(t, f, load)
	// Members that have found no table try again after a while, and do not watch writes meanwhile.
	await(t, "heartbeats of all members", func(ctx context.Context) bool {
		got, err := output(hung.Command(ctx, "postgres", "psql", "-XAtq", "-h", "/run/postgresql", "cs_sys_ha", "-c", "SELECT count(*) FROM cs_sys_heartbeat"))
		return err == nil && got == "3"
	})
	s.happens(disk.freeze)
	now := s.awaitSuccessor()
	disk.thaw()
	if whole := f.awaitWhole(t, 4*patience); whole != now {
		t.Errorf("%s is the primary, after %s", whole.Name, now.Name)
	}
	s.ends(oneEpochMore, idleClientsStay, operationsEnd)
}

// disk is a file system of one host's server or member alone, which can stand still.
type disk struct {
	t    *testing.T
	h    *Host
	path string
	// thawer thaws it when its standard input ends, also when the test is killed: nothing can be
	// unmounted before that.
	thawer *exec.Cmd
	leash  io.Closer
}

// ownDisk moves the server's files to a file system of their own; the server is restarted.
func (n *Node) ownDisk(t *testing.T) *disk {
	t.Helper()
	n.Stop()
	n.Host.must("make a disk", `truncate -s 1G /home/disk && mkfs.ext4 -q /home/disk && mkdir /run/disk && mount -o loop /home/disk /run/disk &&
		cp -a /var/lib/postgresql/. /run/disk/ && chown postgres:postgres /run/disk && mount --move /run/disk /var/lib/postgresql`)
	n.Start()
	return n.Host.leash(t, "/var/lib/postgresql", int(n.pid.Load()))
}

// leash makes a disk of a file system that a process of the host sees.
func (h *Host) leash(t *testing.T, path string, pid int) *disk {
	t.Helper()
	d := &disk{t: t, h: h, path: path}
	d.thawer = exec.Command("sh", "-c", "read -r _; exec fsfreeze --unfreeze .")
	d.thawer.Dir = fmt.Sprintf("/proc/%d/root%s", pid, path)
	d.thawer.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var err error
	if d.leash, err = d.thawer.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := d.thawer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.thaw)
	return d
}

func (d *disk) freeze() {
	d.t.Helper()
	d.h.must("freeze the disk", "fsfreeze --freeze "+d.path)
}

// thaw may be called again.
func (d *disk) thaw() {
	_ = d.leash.Close()
	_ = d.thawer.Wait() // fails when it was not frozen, or is thawed
}

// There is no space for log on the primary: its server ends itself, and cannot be started.
func TestAPrimaryWithoutSpaceForItsLogIsReplaced(t *testing.T) {
	slow(t)
	l := New(t, Options{Hosts: []string{"m1", "m2", "m3", "c1"}})
	hosts := []*Host{l.Host("m1"), l.Host("m2"), l.Host("m3")}
	nodes := l.Postgres(smallLog, hosts...)
	full := nodes[0]
	full.smallLogDisk()
	f := newFleet(l, Layout{Members: hosts, Nodes: nodes})
	s := enact(t, f, usual(f.way(f.members[1])))
	s.happens(full.fillLogDisk)
	now := s.awaitSuccessor()
	full.emptyLogDisk()
	if whole := f.awaitWhole(t, 4*patience); whole != now {
		t.Errorf("%s is the primary, after %s", whole.Name, now.Name)
	}
	s.ends(oneEpochMore, idleClientsStay, operationsEnd)
}

// smallLog keeps little log, so that its disk can be small.
var smallLog = map[string]string{"wal_keep_size": "'32MB'", "max_wal_size": "'64MB'", "min_wal_size": "'32MB'"}

// smallLogDisk moves the server's log to a disk of 256 MB; the server is restarted.
func (n *Node) smallLogDisk() {
	n.lab.t.Helper()
	n.Stop()
	n.Host.must("make a disk", `mkdir /run/wal && mount -t tmpfs -o size=256M,mode=700 tmpfs /run/wal && cp -a `+PGData+`/pg_wal/. /run/wal/ &&
		chown postgres:postgres /run/wal && rm -rf `+PGData+`/pg_wal && ln -s /run/wal `+PGData+`/pg_wal`)
	n.Start()
}

// fillLogDisk leaves no space, and uses up what log the server has prepared for itself.
func (n *Node) fillLogDisk() {
	n.lab.t.Helper()
	n.Host.must("fill the disk", `! dd if=/dev/zero of=/run/wal/ballast bs=1M 2>/dev/null`)
	for range 20 {
		if _, err := n.Psql(n.lab.t.Context(), "SELECT pg_logical_emit_message(false, '', ''), pg_switch_wal()"); err != nil {
			return
		}
	}
}

func (n *Node) emptyLogDisk() { n.lab.t.Helper(); n.Host.must("empty the disk", "rm /run/wal/ballast") }
