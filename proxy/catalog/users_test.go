package catalog

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/proxy/auth"
)

func smallUsers() *users {
	c := DefaultConfig()
	c.MaxUsers = 100
	return newUsers(c)
}

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// answer takes the next name off the queue and answers it.
func answer(t *testing.T, u *users, want string, v *auth.Verifier, err error, at time.Time) {
	t.Helper()
	user, ok := u.next()
	if !ok || user != want {
		t.Fatalf("next is %q, want %q", user, want)
	}
	for _, done := range u.landed(user, v, err, at) {
		done(v, err)
	}
}

func TestOneLookupAnswersEverybodyWhoWaits(t *testing.T) {
	u := smallUsers()
	got := 0
	for range 5 {
		if _, _, wait := u.ask("anna", start, func(v *auth.Verifier, err error) {
			if v == nil || err != nil {
				t.Error(v, err)
			}
			got++
		}); !wait {
			t.Fatal("answered from nothing")
		}
	}
	answer(t, u, "anna", &auth.Verifier{User: "anna"}, nil, start)
	if _, ok := u.next(); ok || got != 5 {
		t.Fatalf("%d answers", got)
	}
}

func TestAnAnswerIsRememberedForItsTime(t *testing.T) {
	u := smallUsers()
	nobody := func(*auth.Verifier, error) {}
	u.ask("anna", start, nobody)
	answer(t, u, "anna", &auth.Verifier{User: "anna"}, nil, start)
	u.ask("ghost", start, nobody)
	answer(t, u, "ghost", nil, ErrUnknownUser, start)
	for _, c := range []struct {
		user  string
		after time.Duration
		wait  bool
		err   error
	}{
		{"anna", 10*time.Second - 1, false, nil},
		{"anna", 10 * time.Second, true, nil},
		{"ghost", 2*time.Second - 1, false, ErrUnknownUser},
		{"ghost", 2 * time.Second, true, nil},
	} {
		_, err, wait := u.ask(c.user, start.Add(c.after), nobody)
		if wait != c.wait || err != c.err {
			t.Errorf("%s after %s: wait %v, %v", c.user, c.after, wait, err)
		}
	}
}

func TestAForgottenAnswerIsAskedForAgain(t *testing.T) {
	u := smallUsers()
	nobody := func(*auth.Verifier, error) {}
	u.ask("anna", start, nobody)
	answer(t, u, "anna", &auth.Verifier{}, nil, start)
	u.forget("anna")
	if _, _, wait := u.ask("anna", start, nobody); !wait {
		t.Fatal("forgotten, and still answered from memory")
	}
	u.forget("anna") // while the lookup is under way: it may have read the old password
	answer(t, u, "anna", &auth.Verifier{}, nil, start)
	if _, _, wait := u.ask("anna", start, nobody); !wait {
		t.Fatal("an answer older than Forget is remembered")
	}
	u.ask("ghost", start, nobody)
	answer(t, u, "anna", &auth.Verifier{}, nil, start)
	answer(t, u, "ghost", nil, ErrUnknownUser, start)
	u.forget("ghost")
	if _, _, wait := u.ask("ghost", start, nobody); !wait {
		t.Fatal("an unknown name is not forgotten")
	}
}

func TestInventedNamesDoNotKeepRealOnesWaiting(t *testing.T) {
	u := smallUsers()
	nobody := func(*auth.Verifier, error) {}
	u.ask("anna", start, nobody)
	answer(t, u, "anna", &auth.Verifier{}, nil, start)
	for i := range 50 {
		u.ask(fmt.Sprint("x", i), start, nobody)
	}
	u.ask("anna", start.Add(time.Minute), nobody)
	if user, _ := u.next(); user != "anna" {
		t.Fatalf("%s comes before anna", user)
	}
}

func TestTheMemoryIsBounded(t *testing.T) {
	u := smallUsers()
	for i := range 5000 {
		name := fmt.Sprint("u", i)
		u.ask(name, start, func(*auth.Verifier, error) {})
		var err error
		if i%2 == 0 {
			err = ErrUnknownUser
		}
		answer(t, u, name, &auth.Verifier{}, err, start)
	}
	if len(u.known) > 100 || len(u.unknown) > maxUnknown || len(u.flights) != 0 || u.waiting != 0 {
		t.Fatal(len(u.known), len(u.unknown), len(u.flights), u.waiting)
	}
	refused := 0
	for i := range maxWaiting + 10 {
		if _, err, wait := u.ask(fmt.Sprint("w", i%7), start, func(*auth.Verifier, error) {}); !wait && errors.Is(err, ErrUnavailable) {
			refused++
		}
	}
	if refused != 10 {
		t.Fatalf("%d refused", refused)
	}
	if n := len(u.end()); n != maxWaiting || u.waiting != 0 {
		t.Fatalf("%d were told of the end", n)
	}
	if _, err, wait := u.ask("late", start, nil); wait || !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
}

func TestValidUntilIsReadInEveryForm(t *testing.T) {
	for in, want := range map[string]time.Time{
		"infinity":                      {},
		"-infinity":                     time.Unix(0, 0),
		"0044-03-15 00:00:00+00 BC":     time.Unix(0, 0),
		"2030-01-02 03:04:05+00":        start,
		"2030-01-02 03:04:05.25+00":     start.Add(250 * time.Millisecond),
		"12030-01-02 03:04:05+00":       {},
		"2030-01-02 03:04:05.000001+00": start.Add(time.Microsecond),
	} {
		if got, err := parseUntil(in); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
	for _, in := range []string{"", "tomorrow", "2030-01-02", "02/01/2030 03:04:05 UTC"} {
		if got, err := parseUntil(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestASettingThatCannotWorkIsRefused(t *testing.T) {
	good := DefaultConfig()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for i, change := range []func(*Config){
		func(c *Config) { c.AuthUser, c.AuthQuery = "x", "" }, func(c *Config) { c.VerifierTTL = -1 },
		func(c *Config) { c.MaxUsers = 0 }, func(c *Config) { c.MaxCatalogBytes = 5 },
		func(c *Config) { c.RefreshEvery = 0 }, func(c *Config) { c.Timeout = 0 },
	} {
		c := good
		change(&c)
		if c.Validate() == nil {
			t.Error(i)
		}
	}
}
