// Package oracle judges SQL by PostgreSQL's own grammar (libpg_query) and by the catalogue of a
// real server, so that the classifier of package router can be held to its promise: what it calls a
// read contains no write. It shares no code with the classifier. It is a module of its own because
// it needs cgo, which the product does not.
//
// Read in this order: parse.go, judge.go, query.go (the walk), names.go and catalogue.go (what
// names mean), script.go and source.go (PostgreSQL's regression suite as a corpus), mutate.go.
//
// The tests download PostgreSQL's source package (25 MB) once into a cache folder, make its regression
// database on a server of their own, and take about two minutes, the first build of libpg_query
// another two or three:
//
//	go test ./...
//	go test -run '^$' -fuzz FuzzReadHasNoWrite -fuzztime 60s .
package oracle
