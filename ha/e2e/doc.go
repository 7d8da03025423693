// Package e2e holds tests only: of several hosts with their faults, on one machine. A Lab is a switch
// and Hosts on it. A host is a set of namespaces (network, mount, pid, uts, ipc) with a pid 1 that
// reaps, an sshd of its own, private /etc /run /tmp /home and data folder; it can be partitioned,
// unplugged, frozen, powered off and on again. A Node is PostgreSQL on a host. What tests run there is
// the product's binary and the system's own tools; the kernel's network stack lies in between.
//
// The tests need root, network namespaces, a cgroup freezer and the programs that `make deps`
// installs; where one is missing they are skipped with a sentence that says which. Nothing has a name
// outside of the lab but one folder below /var/tmp and one control group for each host, and both are
// gone when the test ends, in whatever way: see testdata/watchdog.sh.
package e2e
