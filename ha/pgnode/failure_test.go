package pgnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestFailuresAreSortedByWhatTheySayOfTheServer(t *testing.T) {
	pg := func(code string) error { return &pgconn.PgError{Code: code, Message: "the server's words"} }
	for _, c := range []struct {
		err   error
		cause Cause
		alive bool
		text  string
	}{
		{syscall.ECONNREFUSED, Refused, false, "connection refused"},
		{syscall.ECONNRESET, Reset, false, "connection reset"},
		{&net.OpError{Op: "read", Err: syscall.EPIPE}, Reset, false, "connection reset"},
		{context.DeadlineExceeded, Silent, false, "no answer within 1s"},
		{os.ErrDeadlineExceeded, Silent, false, "no answer within 1s"},
		{syscall.EHOSTUNREACH, Unreachable, false, "host unreachable"},
		{&net.DNSError{Err: "no such host", IsNotFound: true}, Unreachable, false, "host name not found"},
		{pg("57P03"), Starting, true, "the server's words"},
		{pg("53300"), Full, true, "the server's words"},
		{pg("28P01"), Denied, true, "the server's words"},
		{pg("28000"), Denied, true, "the server's words"},
		{pg("3D000"), Denied, true, "the server's words"},
		{pg("42501"), Denied, true, "the server's words"},
		{pg("57P01"), Reset, false, "the server's words"},
		{pg("57014"), Hung, false, "the server's words"},
		{pg("XX000"), Unclassified, false, "the server's words"},
		{errors.New("first\nsecond"), Unclassified, false, "first"},
	} {
		f := classify(fmt.Errorf("connect: %w", c.err), time.Second)
		if c.text == "first" {
			f = classify(c.err, time.Second)
		}
		if f.Cause != c.cause || f.Cause.Alive() != c.alive || f.Error() != c.text {
			t.Errorf("%v: %s, alive %t, %q; want %s, %t, %q", c.err, f.Cause, f.Cause.Alive(), f, c.cause, c.alive, c.text)
		}
		if CauseOf(fmt.Errorf("x: %w", f)) != c.cause || !errors.Is(f, c.err) {
			t.Errorf("%v is not found again in %v", c.err, f)
		}
	}
	if CauseOf(errors.New("x")) != Unclassified || Cause(99).String() != "unclassified" {
		t.Error("an unknown error has a cause")
	}
}

func TestSettingsAreReadWithTheirUnits(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"200ms": 200 * time.Millisecond, "1s": time.Second, "5min": 5 * time.Minute, "2h": 2 * time.Hour, "1d": 24 * time.Hour, "0": 0, "100us": 100 * time.Microsecond,
	} {
		if got, err := parseSetting(text); err != nil || got != want {
			t.Errorf("%s became %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"ms", "1 s", "x", "1y"} {
		if got, err := parseSetting(text); err == nil {
			t.Errorf("%q became %s", text, got)
		}
	}
}

func TestConnectionSettingsAreQuotedAndTheEnvironmentHasNoSay(t *testing.T) {
	t.Setenv("PGTARGETSESSIONATTRS", "read-write")
	t.Setenv("PGHOST", "elsewhere")
	t.Setenv("PGOPTIONS", "-c statement_timeout=1")
	s, err := New(Config{Host: "127.0.0.1", Port: 5, User: `o'neil\`, Password: "p w", Database: "d b", SSLMode: "disable", Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	c := s.cfg
	if c.Host != "127.0.0.1" || c.Port != 5 || c.User != `o'neil\` || c.Password != "p w" || c.Database != "d b" || c.ValidateConnect != nil || c.RuntimeParams["options"] != "" {
		t.Errorf("%+v", c)
	}
	if _, err := New(Config{Host: "h", Port: 5, User: "u", SSLMode: "perhaps"}); err == nil {
		t.Error("an unknown sslmode was taken")
	}
}
