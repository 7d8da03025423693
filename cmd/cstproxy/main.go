// Command cstproxy is the proxy, its control plane and its operators' tool in one binary. This
// package is flags, wiring and output; what it does is in the packages that it wires.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
)

// version is set by the linker (see the Makefile).
var version = "unknown"

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// execute is main with everything that a test wants to hold in its hands.
func execute(ctx context.Context, args []string, out, errOut io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		fmt.Fprintln(errOut, "cstproxy:", line)
	}
	return exitCode(err)
}
