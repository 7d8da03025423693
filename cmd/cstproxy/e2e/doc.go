// Package e2e holds tests only: they build the cstproxy binary, put it in front of real PostgreSQL
// servers, and use it as applications do, with pgbench and with drivers of several languages. One
// scenario per file. Which server answered is taken from the servers (pg_stat_statements, or an
// answer that tells the parameter pglocal.node), never from the proxy. With CST_LONG=1 the long scenarios
// run too (`make soak`).
package e2e
