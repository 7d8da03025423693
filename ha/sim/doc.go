// Package sim runs the decision core against a world that it makes up: virtual time, members with
// clocks of their own, a consensus log, a network that loses, delays and cuts, PostgreSQL servers
// that stream, lie and crash, clients that write and read. What decides is the real thing (ha/decide,
// ha/lease, ha/record); everything else is a model. One seed is one run, the same each time. After
// every event the invariants of a failover are checked; a run that breaks one is shrunk to the
// faults that are needed for it.
//
// Only tests import this package.
package sim
