package pglocal

import (
	"context"
	"fmt"
	"os"
)

// TB is what ForTest needs of a *testing.T or *testing.B; the package is part of the product's
// binary, which has no use for package testing.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// ForTest starts a cluster that lives as long as the test. PostgreSQL is required: a machine
// without it fails the test and is told how to install it.
func ForTest(t TB, o Options) *Cluster {
	t.Helper()
	c := New(o)
	if err := c.Start(context.Background()); err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Fatalf("stop PostgreSQL: %v", err)
		}
	})
	return c
}

// Main is for a TestMain whose tests share one cluster:
//
//	func TestMain(m *testing.M) {
//		os.Exit(pglocal.Main(m, pglocal.Options{Standbys: 2}, func(c *pglocal.Cluster) { shared = c }))
//	}
func Main(m interface{ Run() int }, o Options, use func(*Cluster)) (exit int) {
	c := New(o)
	if err := c.Start(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "start PostgreSQL:", err)
		return 1
	}
	defer func() {
		if err := c.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop PostgreSQL:", err)
			exit = 1
		}
	}()
	use(c)
	return m.Run()
}
