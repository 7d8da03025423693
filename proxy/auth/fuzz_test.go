package auth

import (
	"net/netip"
	"testing"
)

func FuzzScramServerFirst(f *testing.F) {
	for _, s := range []string{"n,,n=,r=abc", "y,,n=a,r=b,x=y", "p=x,,n=,r=a", "n,a=b,n=,r=c", ""} {
		f.Add([]byte(s))
	}
	v := Mock([]byte("s"), "u")
	f.Fuzz(func(t *testing.T, msg []byte) {
		answer, err := NewScramServer(v, now).First(msg)
		if err == nil && len(answer) > 2*MaxMessage {
			t.Fatal("the answer is longer than it can be")
		}
		if err != nil && !Malformed(err) {
			t.Fatalf("unexpected error %v", err)
		}
	})
}

func FuzzScramServerFinal(f *testing.F) {
	for _, s := range []string{"c=biws,r=abcN,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "c=biws,r=abcN,x=y,p=", "p=p,p=p", ""} {
		f.Add([]byte(s))
	}
	k := deriveKeys("pw", []byte("salt"), 1)
	v := &Verifier{salt: []byte("salt"), iterations: 1, stored: k.stored, server: k.server}
	f.Fuzz(func(t *testing.T, msg []byte) {
		s := NewScramServer(v, now)
		s.nonce = "N"
		if _, err := s.First([]byte("n,,n=,r=abc")); err != nil {
			t.Fatal(err)
		}
		if _, keys, err := s.Final(msg); err == nil || keys != nil {
			t.Fatal("a login without the password")
		}
	})
}

func FuzzScramClient(f *testing.F) {
	f.Add([]byte("r=abcN,s=c2FsdA==,i=1"), []byte("v=AAAA"))
	f.Add([]byte("r=abcN,s=,i=1"), []byte("e=x"))
	keys := deriveKeys("pw", []byte("salt"), 1)
	f.Fuzz(func(t *testing.T, first, final []byte) {
		c := NewScramClient(keys)
		c.nonce = "abc"
		c.First()
		if _, err := c.Continue(first); err != nil {
			return
		}
		if err := c.Final(final); err == nil {
			t.Fatal("a server without the verifier was believed")
		}
	})
}

func FuzzParseVerifier(f *testing.F) {
	f.Add("SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Add("md5abc")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVerifier(s)
		if err != nil {
			return
		}
		if v.iterations < 1 || len(v.salt) == 0 || v.Mocked() {
			t.Fatal("an unusable verifier was accepted")
		}
		if first, err := NewScramServer(v, now).First([]byte("n,,n=,r=abc")); err != nil || len(first) > MaxMessage {
			t.Fatalf("%d bytes, %v", len(first), err)
		}
	})
}

func FuzzParseRules(f *testing.F) {
	f.Add("host", `all,"a""b"`, "all", "10.0.0.0/8", "trust")
	f.Add("hostssl", "sameuser", `"+x", y`, "10.0.0.0 255.0.0.0", "scram-sha-256")
	f.Add("local", "replication", "all", "", "reject")
	f.Fuzz(func(t *testing.T, kind, db, user, addr, method string) {
		rules, err := ParseRules([]Rule{{Type: kind, Database: db, User: user, Address: addr, Method: method}})
		if err != nil {
			return
		}
		for _, c := range []Conn{{}, {Addr: netip.MustParseAddr("10.1.2.3"), Database: db, User: user}, {Addr: netip.MustParseAddr("::1"), Replication: true}} {
			if m, i, ok := rules.Match(c); ok != (i == 0) || !ok && m != Reject {
				t.Fatalf("%v %d %v", m, i, ok)
			}
		}
	})
}

func FuzzPrepare(f *testing.F) {
	for _, s := range []string{"plain", "I\u00adX", "\u00aa", "\u2168", "\u0627\u0031", "\xff", "\u0221x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p := Prepare(s); s != "" && p == "" {
			t.Fatalf("%q became empty", s)
		}
	})
}
