package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// exchange runs a whole login and returns what each side says of it.
func exchange(s *ScramServer, c *ScramClient) (*Keys, error, error) {
	first, err := s.First(c.First())
	if err != nil {
		return nil, err, nil
	}
	final, err := c.Continue(first)
	if err != nil {
		return nil, nil, err
	}
	answer, keys, err := s.Final(final)
	if err != nil {
		return nil, err, nil
	}
	return keys, nil, c.Final(answer)
}

func TestTheExampleOfRFC7677IsReproduced(t *testing.T) {
	salt, _ := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	v := deriveVerifier("user", "pencil", salt)
	s := NewScramServer(v, now)
	s.nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	first, err := s.First([]byte("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"))
	if err != nil {
		t.Fatal(err)
	}
	wantFirst := "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	if string(first) != wantFirst {
		t.Fatalf("first = %s", first)
	}
	final, keys, err := s.Final([]byte("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="))
	if err != nil {
		t.Fatal(err)
	}
	if string(final) != "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=" {
		t.Fatalf("final = %s", final)
	}
	if *keys != *deriveKeys("pencil", salt, 4096) {
		t.Fatal("the recovered keys are not the password's")
	}
	c := NewScramClientWithPassword("pencil")
	c.nonce = "rOprNGfwEbeRWgbNEkqO"
	c.First()
	c.bare = "n=user,r=rOprNGfwEbeRWgbNEkqO" // libpq's empty name would change the signature
	got, err := c.Continue([]byte(wantFirst))
	if err != nil || !strings.HasSuffix(string(got), ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=") {
		t.Fatalf("client final = %s, %v", got, err)
	}
	if err := c.Final(final); err != nil || !c.Succeeded() {
		t.Fatalf("client does not accept: %v", err)
	}
}

func TestKeysFromOneLoginOpenTheNext(t *testing.T) {
	v := MakeVerifier("anna", "geheim ß")
	keys, serr, cerr := exchange(NewScramServer(v, now), NewScramClientWithPassword("geheim ß"))
	if serr != nil || cerr != nil {
		t.Fatal(serr, cerr)
	}
	if !keys.Fit(v) {
		t.Fatal("keys do not fit their own verifier")
	}
	again, serr, cerr := exchange(NewScramServer(v, now), NewScramClient(keys))
	if serr != nil || cerr != nil {
		t.Fatal(serr, cerr)
	}
	if *again != *keys {
		t.Fatal("the second login revealed other keys")
	}
	changed := MakeVerifier("anna", "geheim ß") // the same password salted anew
	if keys.Fit(changed) {
		t.Fatal("old keys fit a new verifier")
	}
	if _, serr, _ = exchange(NewScramServer(changed, now), NewScramClient(keys)); !errors.Is(serr, ErrRefused) {
		t.Fatalf("old keys on a new verifier: %v", serr)
	}
}

func TestEveryFailedLoginLooksLikeAWrongPassword(t *testing.T) {
	good := MakeVerifier("anna", "right")
	expired := *good
	expired.ValidUntil = now.Add(-time.Second)
	for _, c := range []struct {
		name     string
		v        *Verifier
		password string
	}{
		{"wrong password", good, "wrong"},
		{"expired password", &expired, "right"},
		{"unknown user", Mock([]byte("secret"), "nobody"), "right"},
	} {
		_, serr, cerr := exchange(NewScramServer(c.v, now), NewScramClientWithPassword(c.password))
		if serr == nil || serr.Error() != ErrRefused.Error() || cerr != nil {
			t.Errorf("%s: server %v, client %v", c.name, serr, cerr)
		}
	}
	valid := *good
	valid.ValidUntil = now.Add(time.Second)
	if _, serr, cerr := exchange(NewScramServer(&valid, now), NewScramClientWithPassword("right")); serr != nil || cerr != nil {
		t.Errorf("valid for one more second: %v, %v", serr, cerr)
	}
}

func TestAMockAnswersTheSameSaltEachTime(t *testing.T) {
	ask := func(secret, user string) (salt string) {
		first, err := NewScramServer(Mock([]byte(secret), user), now).First([]byte("n,,n=,r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		_, salt, _ = strings.Cut(string(first), ",")
		return salt
	}
	if once, again := ask("a", "x"), ask("a", "x"); once != again {
		t.Error("asking twice gives two salts")
	}
	if ask("a", "x") == ask("a", "y") || ask("a", "x") == ask("b", "x") {
		t.Error("the salt does not depend on user and secret")
	}
	if salt := ask("a", "x"); len(salt) != len("s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096") || !strings.HasSuffix(salt, ",i=4096") {
		t.Errorf("%s does not look like PostgreSQL's", salt)
	}
}

func TestAMockStaysClosedToSomebodyWhoKnowsItsKeys(t *testing.T) {
	v := Mock([]byte("secret"), "x")
	k := deriveKeys("pw", v.salt, v.iterations)
	v.stored, v.server = k.stored, k.server
	if _, serr, _ := exchange(NewScramServer(v, now), NewScramClientWithPassword("pw")); !errors.Is(serr, ErrRefused) {
		t.Fatal(serr)
	}
}

func TestFirstMessagesAreCheckedAsPostgreSQLDoes(t *testing.T) {
	v := MakeVerifier("anna", "x")
	long := strings.Repeat("a", MaxMessage)
	for _, c := range []struct {
		msg  string
		want error
	}{
		{"n,,n=,r=abc", nil},
		{"y,,n=,r=abc", nil},
		{"n,,n=anna,r=abc,x=ext", nil},
		{"n,,n=*,r=!~", nil},
		{"", ErrMalformed},
		{"n", ErrMalformed},
		{"n,", ErrMalformed},
		{"n,,", ErrMalformed},
		{"x,,n=,r=abc", ErrMalformed},
		{"p=tls-server-end-point,,n=,r=abc", ErrMalformed},
		{"n,a=root,n=,r=abc", ErrUnsupported},
		{"n,b,n=,r=abc", ErrMalformed},
		{"n,,m=ext,n=,r=abc", ErrUnsupported},
		{"n,,r=abc", ErrMalformed},
		{"n,,n=,r=", ErrMalformed},
		{"n,,n=", ErrMalformed},
		{"n,,n=,r=a\x7f", ErrMalformed},
		{"n,,n=,r=ä", ErrMalformed},
		{"n,,n=,r=a b", ErrMalformed},
		{"n,,n=,r=abc\x00", ErrMalformed},
		{"n,,n=,r=abc,5=x", ErrMalformed},
		{"n,,n=,r=abc,xx", ErrMalformed},
		{"n,,n=,r=abc,", ErrMalformed},
		{"n,,n=,r=" + long, ErrMalformed},
	} {
		if _, err := NewScramServer(v, now).First([]byte(c.msg)); !errors.Is(err, c.want) {
			t.Errorf("%.40q: %v, want %v", c.msg, err, c.want)
		}
	}
}

func TestFinalMessagesAreCheckedAsPostgreSQLDoes(t *testing.T) {
	v := MakeVerifier("anna", "x")
	proof := base64.StdEncoding.EncodeToString(make([]byte, keyBytes))
	for _, c := range []struct {
		first, final string // N is the full nonce, P a well-formed proof
		want         error
	}{
		{"n,,n=,r=abc", "c=biws,r=N,p=P", ErrRefused},
		{"y,,n=,r=abc", "c=eSws,r=N,p=P", ErrRefused},
		{"n,,n=,r=abc", "c=biws,r=N,x=ext,y=ext,p=P", ErrRefused},
		{"n,,n=,r=abc", "c=eSws,r=N,p=P", ErrMalformed},
		{"y,,n=,r=abc", "c=biws,r=N,p=P", ErrMalformed},
		{"n,,n=,r=abc", "c=biws,r=Nx,p=P", ErrBadResponse},
		{"n,,n=,r=abc", "c=biws,r=abc,p=P", ErrBadResponse},
		{"n,,n=,r=abc", "c=biws,r=N,p=P,x=y", ErrMalformed},
		{"n,,n=,r=abc", "c=biws,r=N,p=P,", ErrMalformed},
		{"n,,n=,r=abc", "c=biws,r=N,p=AAAA", ErrMalformed},
		{"n,,n=,r=abc", "c=biws,r=N,p=", ErrMalformed},
		{"n,,n=,r=abc", "c=biws,r=N,p=P=", ErrMalformed},
		{"n,,n=,r=abc", "c=biws,r=N", ErrMalformed},
		{"n,,n=,r=abc", "c=biws,r=N,x=ext", ErrMalformed},
		{"n,,n=,r=abc", "r=N,c=biws,p=P", ErrMalformed},
		{"n,,n=,r=abc", "", ErrMalformed},
		{"n,,n=,r=abc", "c=biws,r=N,p=P\x00", ErrMalformed},
	} {
		s := NewScramServer(v, now)
		if _, err := s.First([]byte(c.first)); err != nil {
			t.Fatal(err)
		}
		msg := strings.NewReplacer("N", s.full, "P", proof).Replace(c.final)
		if _, keys, err := s.Final([]byte(msg)); !errors.Is(err, c.want) || keys != nil {
			t.Errorf("%q after %q: %v, want %v", c.final, c.first, err, c.want)
		}
	}
}

func TestAnExchangeCannotBeRepeatedOrReordered(t *testing.T) {
	v := MakeVerifier("anna", "x")
	s := NewScramServer(v, now)
	if _, _, err := s.Final([]byte("c=biws,r=abc,p=AAAA")); !errors.Is(err, ErrMalformed) {
		t.Errorf("final before first: %v", err)
	}
	s = NewScramServer(v, now)
	c := NewScramClientWithPassword("x")
	if _, err := s.First(c.First()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.First(c.First()); !errors.Is(err, ErrMalformed) {
		t.Errorf("first twice: %v", err)
	}
	s = NewScramServer(v, now)
	first, _ := s.First(c.First())
	final, err := c.Continue(first)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Final([]byte("c=biws")); err == nil {
		t.Fatal("accepted")
	}
	if _, _, err := s.Final(final); !errors.Is(err, ErrMalformed) {
		t.Errorf("a second try in the same exchange: %v", err)
	}
	if _, err := c.Continue(first); !errors.Is(err, ErrServer) {
		t.Errorf("client continues twice: %v", err)
	}
}

func TestTheClientSideRefusesAServerThatCheats(t *testing.T) {
	salt := "s=W22ZaJ0SNY7soEsUEjb6gQ=="
	for name, first := range map[string]string{
		"nonce not ours":        "r=zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz," + salt + ",i=4096",
		"nonce not extended":    "r=N," + salt + ",i=4096",
		"empty":                 "",
		"no salt":               "r=Nx,i=4096",
		"empty salt":            "r=Nx,s=,i=4096",
		"no iterations":         "r=Nx," + salt,
		"no iterations at all":  "r=Nx," + salt + ",i=0",
		"negative iterations":   "r=Nx," + salt + ",i=-1",
		"hours of iterations":   "r=Nx," + salt + ",i=2147483647",
		"overflow":              "r=Nx," + salt + ",i=99999999999999999999",
		"mandatory extension":   "m=x,r=Nx," + salt + ",i=4096",
		"something after count": "r=Nx," + salt + ",i=4096,x=y",
	} {
		c := NewScramClientWithPassword("x")
		c.First()
		if _, err := c.Continue([]byte(strings.ReplaceAll(first, "N", c.nonce))); !errors.Is(err, ErrServer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, final := range map[string]string{
		"no signature": "", "error": "e=other-error", "wrong": "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
		"short": "v=AAAA", "junk": "v=!", "more": "v=AAAA,x=y", "other": "x=y",
	} {
		c := NewScramClientWithPassword("x")
		first, _ := NewScramServer(MakeVerifier("a", "x"), now).First(c.First())
		if _, err := c.Continue(first); err != nil {
			t.Fatal(err)
		}
		if err := c.Final([]byte(final)); !errors.Is(err, ErrServer) || c.Succeeded() {
			t.Errorf("final %s: %v", name, err)
		}
	}
	c := NewScramClientWithPassword("x")
	c.First()
	if err := c.Final([]byte("v=AAAA")); !errors.Is(err, ErrServer) {
		t.Errorf("final before challenge: %v", err)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	v := MakeVerifier("anna", "pw")
	k := deriveKeys("pw", v.salt, v.iterations)
	for _, s := range []string{fmt.Sprint(v), fmt.Sprintf("%+v %#v %v", v, v, *k), fmt.Sprintf("%+v %#v", k, k)} {
		if strings.Contains(s, "[") || strings.Contains(s, "0x") {
			t.Errorf("printed: %s", s)
		}
	}
}

func TestAVerifierOfAnotherFormIsRefused(t *testing.T) {
	k := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, keyBytes))
	good := "SCRAM-SHA-256$4096:c2FsdA==$" + k + ":" + k
	if v, err := ParseVerifier(good); err != nil || v.Mocked() || v.Expired(now) || !v.CanLogin {
		t.Fatal(v, err)
	}
	for _, bad := range []string{
		"", "md5abc", "secret-password", "SCRAM-SHA-256", "SCRAM-SHA-256$", "scram-sha-256$4096:c2FsdA==$" + k + ":" + k,
		strings.Replace(good, "4096", "0", 1), strings.Replace(good, "4096", "-1", 1), strings.Replace(good, "4096", "4096x", 1),
		strings.Replace(good, "4096", "99999999999", 1), strings.Replace(good, "c2FsdA==", "", 1), strings.Replace(good, "c2FsdA==", "!", 1),
		strings.Replace(good, "c2FsdA==", strings.Repeat("AAAA", 200), 1), good + "x", good + ":" + k, good + "$",
		strings.TrimSuffix(good, ":"+k), "SCRAM-SHA-256$4096:c2FsdA==$AAAA:" + k,
	} {
		_, err := ParseVerifier(bad)
		if err == nil {
			t.Errorf("%q accepted", bad)
		} else if strings.Contains(err.Error(), k[:8]) || strings.Contains(err.Error(), "secret-password") {
			t.Errorf("the error quotes its input: %v", err)
		}
	}
}

func TestALoginWithAStoredVerifierIteratesNothing(t *testing.T) {
	v := MakeVerifier("anna", "x")
	keys := deriveKeys("x", v.salt, v.iterations)
	v.iterations = 1<<31 - 1 // about twenty minutes, if anybody did it
	if _, serr, cerr := exchange(NewScramServer(v, now), NewScramClient(keys)); serr != nil || cerr != nil {
		t.Fatal(serr, cerr)
	}
}

func TestAMockHasTheIterationsOfTheOthers(t *testing.T) {
	v := MakeVerifier("anna", "x")
	v.iterations = 10000
	first, err := NewScramServer(MockLike(v, []byte("s"), "nobody"), now).First([]byte("n,,n=,r=abc"))
	if err != nil || !strings.HasSuffix(string(first), ",i=10000") {
		t.Fatal(string(first), err)
	}
}

func BenchmarkServerSideOfALogin(b *testing.B) {
	v := MakeVerifier("anna", "x")
	keys := deriveKeys("x", v.salt, v.iterations)
	for b.Loop() {
		if _, serr, cerr := exchange(NewScramServer(v, now), NewScramClient(keys)); serr != nil || cerr != nil {
			b.Fatal(serr, cerr)
		}
	}
}
