package proxy

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

// loginByPassword goes through a SCRAM login and returns what the client reads in the end.
func loginByPassword(w *world, password string) []string {
	c := w.accept(ListenAuto)
	c.send(startupPacket(wire.Version30, "user", "scram"))
	scram := auth.NewScramClientWithPassword(password)
	first := scram.First()
	body := binary.BigEndian.AppendUint32(cstring(auth.Mechanism), uint32(len(first)))
	if list := renderMessages(c.received(), true); len(list) != 1 || !strings.HasPrefix(list[0], "SASL ") {
		return list
	}
	c.send(message(nil, 'p', append(body, first...)))
	challenge := c.received()
	final, err := scram.Continue(challenge[9:])
	if err != nil {
		w.t.Fatal(err)
	}
	c.send(message(nil, 'p', final))
	return renderMessages(c.received(), true)
}

func TestAPasswordIsCheckedAgainstTheServersVerifier(t *testing.T) {
	for _, way := range []func(int) int{func(n int) int { return n }, byteByByte} {
		w := newWorld(t, nil)
		w.cut = way
		w.catalog.verifier = auth.MakeVerifier("scram", "right")
		w.catalog.verifier.CanLogin = true
		got := loginByPassword(w, "right")
		if len(got) < 3 || !strings.HasPrefix(got[0], "SASLFinal") || got[1] != "AuthenticationOk" || got[len(got)-1] != "Ready I" {
			t.Errorf("the right password: %q", got)
		}
		if w.c.credentials["scram"] == nil {
			t.Error("the login has left no key for the servers")
		}
		expectError(t, loginByPassword(w, "wrong"), "28P01")
		if w.catalog.forgotten != 1 {
			t.Errorf("the verifier was read anew %d times", w.catalog.forgotten)
		}
	}
}

func TestALoginThatCannotBeRefusesInTheRightWords(t *testing.T) {
	w := newWorld(t, nil)
	expectError(t, loginByPassword(w, "any"), "28P01") // nobody knows the user
	w.catalog.failing = true
	expectError(t, loginByPassword(w, "any"), "57P03") // nobody can be asked
	w.catalog.failing = false
	v := auth.MakeVerifier("scram", "right")
	w.catalog.verifier = v
	v.CanLogin = false
	expectError(t, loginByPassword(w, "right"), "28000")
	v.CanLogin, v.ValidUntil = true, w.now.Add(-time.Second)
	expectError(t, loginByPassword(w, "right"), "28P01")
	if len(w.p.sessions) != 0 {
		t.Errorf("%d sessions are left", len(w.p.sessions))
	}
}

func expectError(t *testing.T, list []string, code string) {
	t.Helper()
	if len(list) != 1 || !strings.HasPrefix(list[0], "Error FATAL "+code) {
		t.Errorf("got %q, want FATAL %s", list, code)
	}
}
