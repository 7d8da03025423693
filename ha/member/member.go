// Package member makes this process a member of a fleet, alone or among others: from the configuration
// it builds the ways to the servers and hosts, the consensus log, the links and the gossip, and hands
// them to package fleet.
package member
