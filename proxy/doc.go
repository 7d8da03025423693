// Package proxy is the data plane: sessions that speak PostgreSQL's protocol with clients, send
// each turn to the node where it belongs, and keep a client from noticing that its servers change.
// A session is a machine without I/O: its loop feeds it bytes, timers and granted servers, and it
// answers by writing to connections. One loop owns all sessions, pools and balancers, so nothing
// here is locked; what would block runs on a goroutine and posts its result to the loop. The
// control plane is known only as topology.View.
package proxy
