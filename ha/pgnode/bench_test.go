package pgnode

import (
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// What the servers and this process pay for each round and each probe.
func BenchmarkQuestions(b *testing.B) {
	pg := pglocal.ForTest(b, pglocal.Options{Standbys: 1})
	conns := make([]*Conn, 2)
	for i, n := range pg.Nodes() {
		s, err := New(Config{Host: n.Host, Port: n.Port, User: "postgres", Password: pglocal.DefaultPassword, Database: "postgres", SSLMode: "disable", Timeout: 5 * time.Second})
		if err != nil {
			b.Fatal(err)
		}
		if conns[i], err = s.Connect(b.Context()); err != nil {
			b.Fatal(err)
		}
		defer conns[i].Close(b.Context())
	}
	for name, ask := range map[string]func() error{
		"position": func() error { _, err := conns[0].Position(b.Context()); return err },
		"replayed": func() error { _, err := conns[1].Replayed(b.Context()); return err },
		"probe":    func() error { _, err := conns[1].Probe(b.Context()); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
