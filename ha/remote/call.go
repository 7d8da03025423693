package remote

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// call is one command for a login shell. The line writes mark on its standard output before anything
// of its own.
type call struct {
	line, mark string
	stdin      string
	progress   func(line string)
}

// Ask runs a command that changes nothing, without the ratchet, in the root directory, and returns
// what it wrote. It ends with ctx, or after Config.AskTimeout; the host ends the command soon after.
// Errors: *ExitError, *Unreachable, *HostKey, *Auth, the context's.
func (h *Host) Ask(ctx context.Context, argv []string) (Output, error) {
	ctx, cancel := h.bounded(ctx)
	defer cancel()
	words, err := quote(argv)
	if err != nil {
		return Output{}, err
	}
	mark := rand.Text()
	out, _, err := h.exec(ctx, h.asks, call{
		line: fmt.Sprintf("echo %s; cd /; exec timeout -k 1 %d %s", mark, seconds(ctx)+1, words),
		mark: mark,
	})
	return out, err
}

// bounded gives a context without a deadline one.
func (h *Host) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, h.cfg.AskTimeout)
}

// seconds is how long ctx has, rounded up and at least 1; 0 when it has no end.
func seconds(ctx context.Context) int {
	end, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(1, int((time.Until(end)+time.Second-1)/time.Second))
}

// exec runs a call in its turn, and returns the wrapper's account, if there is one, apart. A
// connection that turns out to be dead before the command was sent is replaced once.
func (h *Host) exec(ctx context.Context, turn chan struct{}, c call) (Output, string, error) {
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return Output{}, "", h.ended(ctx)
	}
	defer func() { <-turn }()
	out, account, err := h.attempt(ctx, c)
	var lost *Unreachable
	if ctx.Err() == nil && errors.As(err, &lost) && lost.link != nil && !lost.Sent {
		h.abandoned(ctx, lost.link)
		out, account, err = h.attempt(ctx, c)
	}
	if err != nil && ctx.Err() != nil {
		err = h.ended(ctx)
	}
	return out, account, err
}

// attempt runs a call on the present connection.
func (h *Host) attempt(ctx context.Context, c call) (Output, string, error) {
	l, err := h.connection(ctx)
	if err != nil {
		return Output{}, "", err
	}
	s := &sink{mark: c.mark, progress: c.progress}
	defer s.close()
	done := make(chan error, 1)
	go func() { defer l.users.Done(); done <- l.converse(ctx, c, s) }() // Run waits for users
	select {
	case err = <-done:
		s.flush()
	case <-ctx.Done():
		err = ctx.Err()
	}
	out, account := s.result()
	var exit *ssh.ExitError
	if err != nil && !errors.As(err, &exit) {
		return out, account, &Unreachable{Host: h.name, Sent: s.was(&s.sent), Err: err, link: l}
	}
	return out, account, h.verdict(exit, s, out)
}

func (h *Host) ended(ctx context.Context) error {
	return fmt.Errorf("command on %s: %w", h.name, context.Cause(ctx))
}

// verdict judges a command that ended; exit is nil when it did with 0.
func (h *Host) verdict(exit *ssh.ExitError, s *sink, out Output) error {
	switch {
	case !s.was(&s.began):
		return fmt.Errorf("the login shell of %s on %s did not run the command: %q", h.cfg.User, h.name, s.said())
	case exit != nil:
		return &ExitError{Code: exit.ExitStatus(), Stderr: strings.TrimSpace(string(out.Stderr))}
	}
	return nil
}

// converse runs one command to its end, or until ctx ends or the connection does.
func (l *link) converse(ctx context.Context, c call, s *sink) error {
	session, err := l.session(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	stop := context.AfterFunc(ctx, func() { _ = session.Close() })
	defer stop()
	session.Stdout, session.Stderr = stdout{s}, stderr{s}
	session.Stdin = strings.NewReader(c.stdin)
	s.mu.Lock()
	s.sent = true
	s.mu.Unlock()
	if err := session.Start(c.line); err != nil {
		return fmt.Errorf("start the command: %w", err)
	}
	err = session.Wait()
	if errors.Is(err, io.EOF) { // the command ended without reading its input
		return nil
	}
	return err
}

// session opens a channel. A server that has too many open at the moment is asked again.
func (l *link) session(ctx context.Context) (*ssh.Session, error) {
	for {
		session, err := l.client.NewSession()
		var refused *ssh.OpenChannelError
		if !errors.As(err, &refused) {
			return session, err
		}
		pause := time.NewTimer(retryMin)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, fmt.Errorf("the SSH server opens no session (MaxSessions): %w", err)
		}
	}
}

// Reach is what a connection attempt met.
type Reach int

const (
	Unknown   Reach = iota // could not be asked
	Connected              // somebody listens there
	Closed                 // the host answered that nobody does
	Silent                 // no answer, or no way
)

// ProbeFrom has the host open a TCP connection to another one, from where it stands, and close it.
// Silent is what it met itself within Config.ProbeTimeout; when ctx ends before it has answered, the
// answer is Unknown and the error says so. Why is the host's own words. The host needs bash for it.
func (h *Host) ProbeFrom(ctx context.Context, host string, port int) (Reach, string, error) {
	_, err := h.Ask(ctx, []string{"env", "LC_ALL=C", "timeout", strconv.FormatFloat(h.cfg.ProbeTimeout.Seconds(), 'f', 3, 64),
		"bash", "-c", `exec 3<>"/dev/tcp/$1/$2"`, "bash", host, strconv.Itoa(port)})
	var exit *ExitError
	switch {
	case err == nil:
		return Connected, "", nil
	case !errors.As(err, &exit):
		return Unknown, "", err
	case exit.Code == 124:
		return Silent, fmt.Sprintf("no answer within %v", h.cfg.ProbeTimeout), nil
	}
	why := exit.Stderr[strings.LastIndexByte(exit.Stderr, ':')+1:] // bash: /dev/tcp/HOST/PORT: Connection refused
	switch why = strings.TrimSpace(why); why {
	case "Connection refused":
		return Closed, why, nil
	case "Connection timed out", "Network is unreachable", "No route to host":
		return Silent, why, nil
	}
	return Unknown, why, err
}
