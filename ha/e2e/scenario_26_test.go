package e2e

import "testing"

// The leader's disk does not answer any more, and then the primary crashes. The leader is heard of all the while;
// somebody else leads nevertheless, and the crash is dealt with before the disk goes on.
func TestALeaderWhoseDiskHangsIsSucceeded(t *testing.T) {
	_, f := three(t, Layout{Operation: map[string]string{"on_crash": `"failover"`}})
	primary := f.awaitWhole(t, patience)
	leader := f.elsewhere(primary)
	disk := leader.ownDisk(t)
	f.awaitLeader(t, leader)
	s := enact(t, f, usual(f.way(f.memberOn(primary.Host))))
	s.happens(func() {
		disk.freeze()
		s.former.Kill()
	})
	now := s.awaitSuccessor()
	s.awaitSaid(patience, "the fleet's log hangs")
	if f.leads() == leader {
		t.Errorf("%s leads without its disk", leader.Name)
	}
	disk.thaw()
	if whole := f.awaitWhole(t, 3*patience); whole != now {
		t.Errorf("%s is the primary, after %s", whole.Name, now.Name)
	}
	s.ends(oneEpochMore, operationsEnd)
}

// ownDisk moves what the member keeps to a file system of its own; the member is restarted.
func (m *Member) ownDisk(t *testing.T) *disk {
	t.Helper()
	m.Kill()
	m.Host.must("make a disk", `cd /home/cstproxy && truncate -s 64M /home/state.disk && mkfs.ext4 -q /home/state.disk && cp -a state /run/state &&
		mount -o loop /home/state.disk state && cp -a /run/state/. state/ && chown --reference=/run/state state`)
	m.Start()
	m.AwaitReady()
	return m.Host.leash(t, "/home/cstproxy/state", int(m.pid.Load()))
}
