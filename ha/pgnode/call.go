package pgnode

import (
	"context"
	"fmt"
	"strings"
)

// Call calls a function with text arguments and drops what it returns. name goes into the statement as it
// is: the caller has checked it. What the function does takes its time, so ctx alone bounds it: give it an
// end. On a primary whose synchronous standbys are away its commit waits like any other.
func (c *Conn) Call(ctx context.Context, name string, args ...string) error {
	list := make([]string, len(args))
	for i, arg := range args {
		list[i] = quoted(arg) + "::text"
	}
	if _, err := c.patiently(ctx, "SELECT "+name+"("+strings.Join(list, ", ")+")"); err != nil {
		return fmt.Errorf("call %s: %w", name, err)
	}
	return nil
}
