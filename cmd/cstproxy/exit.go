package main

import (
	"errors"
	"fmt"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/conf"
)

// Exit codes, the same for every command.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2 // also a configuration with problems, and a name that does not exist
	exitUnreachable = 3
	exitRefused     = 4
)

// usageError is a command line that cannot be understood.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

func exitCode(err error) int {
	var usage usageError
	var problems conf.Problems
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage), errors.As(err, &problems), errors.Is(err, admin.ErrUsage):
		return exitUsage
	case errors.Is(err, admin.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, admin.ErrRefused):
		return exitRefused
	}
	return exitFailed
}
