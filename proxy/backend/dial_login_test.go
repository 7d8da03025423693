package backend

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

func msg(typ byte, body string) string {
	b := binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(body)))
	return string(b) + body
}

func authMsg(kind uint32, rest string) string {
	return msg('R', string(binary.BigEndian.AppendUint32(nil, kind))+rest)
}

const (
	askSASL = "SCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00"
	scram1  = "r=x,s=c2FsdA==,i=4096"
)

// script is a Stream whose server says what it has been told to say, whatever it hears.
type script struct {
	io.Reader
	heard bytes.Buffer
}

func (s *script) Write(b []byte) (int, error)                 { return s.heard.Write(b) }
func (s *script) Close() error                                { return nil }
func (s *script) SetDeadline(time.Time) error                 { return nil }
func (s *script) StartTLS(context.Context, *tls.Config) error { return errors.New("no TLS here") }

func machine(t testing.TB, c Credential, file string) *loginMachine {
	d, err := NewDialer(DialConfig{Timeout: time.Second, TLS: TLSDisable, PasswordFile: file, ApplicationName: "cstproxy"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := d.newLogin(DialRequest{Node: topology.Node{Host: "h", Port: 1}, Database: "d", User: "u", Credential: c})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestALoginTakesParametersAndTheCancelKey(t *testing.T) {
	s := &script{Reader: strings.NewReader(authMsg(0, "") + msg('N', "SNOTICE\x00C00000\x00Mhello\x00\x00") + msg('S', "a\x001\x00") +
		msg('S', "b\x00\x00") + msg('K', "\x00\x00\x01\x02secretsecret") + msg('Z', "I") + "later")}
	login, err := converse(s, machine(t, Credential{}, ""))
	if err != nil {
		t.Fatal(err)
	}
	if login.PID != 258 || string(login.Secret) != "secretsecret" || len(login.Parameters) != 2 ||
		login.Parameters[0] != (wire.Parameter{Name: "a", Value: "1"}) || login.Parameters[1] != (wire.Parameter{Name: "b", Value: ""}) {
		t.Errorf("%+v", login)
	}
	if rest, _ := io.ReadAll(s); string(rest) != "later" {
		t.Errorf("%q is left behind ReadyForQuery", rest)
	}
	for _, want := range []string{"user\x00u\x00", "database\x00d\x00", "application_name\x00cstproxy\x00", "\x00\x03\x00\x00"} {
		if !strings.Contains(s.heard.String(), want) {
			t.Errorf("start-up packet %q lacks %q", s.heard.String(), want)
		}
	}
}

func TestAServerThatBreaksTheLoginIsRefused(t *testing.T) {
	keys := Credential{Password: "pw"}
	ok, ready := authMsg(0, ""), msg('Z', "I")
	for name, c := range map[string]struct{ says, want string }{
		"nothing":                    {"", "EOF"},
		"half a header":              {"R\x00", "unexpected EOF"},
		"length below 4":             {"R\x00\x00\x00\x03", "message of -1 bytes"},
		"huge length":                {"R\x7f\xff\xff\xff", "bytes during the login"},
		"endless notices":            {strings.Repeat(msg('N', strings.Repeat("x", maxLoginMessage)), 20), "more than"},
		"ready before ok":            {ready, "before it accepted"},
		"parameter before ok":        {msg('S', "a\x00b\x00"), "before it accepted"},
		"data after ok":              {ok + msg('D', "\x00\x00"), `message 'D'`},
		"short request":              {msg('R', "\x00"), "too short"},
		"ready in a transaction":     {ok + msg('Z', "T"), "not idle"},
		"ready without status":       {ok + msg('Z', ""), "not idle"},
		"ok in the middle of SCRAM":  {authMsg(10, askSASL) + ok, "without proving"},
		"SCRAM twice":                {authMsg(10, askSASL) + authMsg(10, askSASL), "out of turn"},
		"clear text after SCRAM":     {authMsg(10, askSASL) + authMsg(3, ""), "out of turn"},
		"final first":                {authMsg(12, "v=AAAA"), "method 12"},
		"continue first":             {authMsg(11, scram1), "method 11"},
		"foreign nonce":              {authMsg(10, askSASL) + authMsg(11, scram1), "nonce"},
		"only PLUS":                  {authMsg(10, "SCRAM-SHA-256-PLUS\x00\x00"), "offers SASL"},
		"mechanisms unterminated":    {authMsg(10, "SCRAM"), "mechanisms"},
		"GSS":                        {authMsg(7, ""), "method 7"},
		"clear text without TLS":     {authMsg(3, ""), "clear text"},
		"md5 without salt":           {authMsg(5, "ab"), "salt"},
		"cancel key too short":       {ok + msg('K', "\x00\x00\x00"), "cancel key"},
		"cancel key too long":        {ok + msg('K', strings.Repeat("x", 300)), "cancel key"},
		"parameter without value":    {ok + msg('S', "a"), "parameter"},
		"error without end":          {msg('E', "SFATAL"), "server's error"},
		"a second ok":                {ok + ok, "without proving"},
		"authentication after ready": {ok + authMsg(3, ""), "out of turn"},
	} {
		login, err := converse(&script{Reader: strings.NewReader(c.says)}, machine(t, keys, ""))
		if err == nil || login != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestARefusalIsKeptAsItCame(t *testing.T) {
	body := "SFATAL\x00VFATAL\x00C53300\x00Msorry, too many clients already\x00Xunknown\x00Fproc.c\x00L359\x00RInitProcess\x00\x00"
	_, err := converse(&script{Reader: strings.NewReader(msg('E', body))}, machine(t, Credential{}, ""))
	var refusal *ServerError
	if !errors.As(err, &refusal) || string(refusal.Body()) != body || refusal.SQLState() != "53300" ||
		refusal.Severity != "FATAL" || refusal.Message != "sorry, too many clients already" {
		t.Fatalf("%v", err)
	}
}

func TestWithoutACredentialAServerThatAsksIsNotAnswered(t *testing.T) {
	for _, ask := range []string{authMsg(10, askSASL), authMsg(5, "salt"), authMsg(3, "")} {
		s := &script{Reader: strings.NewReader(ask)}
		m := machine(t, Credential{}, "")
		m.private = true
		if _, err := converse(s, m); !errors.Is(err, ErrNoCredential) {
			t.Error(err)
		}
	}
	// SCRAM keys are no password: md5 cannot be answered with them.
	v := auth.MakeVerifier("u", "pw")
	server, client := auth.NewScramServer(v, time.Now()), auth.NewScramClientWithPassword("pw")
	first, _ := server.First(client.First())
	final, _ := client.Continue(first)
	_, keys, err := server.Final(final)
	if err != nil {
		t.Fatal(err)
	}
	m := machine(t, Credential{Keys: keys}, "")
	if _, err := converse(&script{Reader: strings.NewReader(authMsg(5, "salt"))}, m); !errors.Is(err, ErrNoCredential) {
		t.Error(err)
	}
}

func TestThePasswordFileAnswersMD5AndClearText(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(file, []byte("h:1:d:u:pw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &script{Reader: strings.NewReader(authMsg(5, "salt") + authMsg(0, "") + msg('Z', "I"))}
	if _, err := converse(s, machine(t, Credential{}, file)); err != nil || !strings.Contains(s.heard.String(), md5Answer("pw", "u", [4]byte{'s', 'a', 'l', 't'})) {
		t.Error(err)
	}
	m := machine(t, Credential{}, file)
	m.private = true
	s = &script{Reader: strings.NewReader(authMsg(3, "") + authMsg(0, "") + msg('Z', "I"))}
	if _, err := converse(s, m); err != nil || !strings.HasSuffix(s.heard.String(), "p\x00\x00\x00\x07pw\x00") {
		t.Errorf("%v %q", err, s.heard.String())
	}
}

func TestAStartUpParameterCannotSmuggleAnother(t *testing.T) {
	d, _ := NewDialer(DefaultDialConfig())
	for _, req := range []DialRequest{
		{User: "u\x00database\x00x"}, {User: "u", Database: "d\x00"},
		{User: "u", Parameters: []wire.Parameter{{Name: "", Value: "x"}}},
		{User: "u", Parameters: []wire.Parameter{{Name: "a\x00b", Value: "x"}}},
	} {
		if _, err := d.newLogin(req); err == nil {
			t.Errorf("%+v accepted", req)
		}
	}
}

func TestDialSettingsThatCannotWorkAreRefused(t *testing.T) {
	bad := func(change func(*DialConfig), want string) {
		c := DefaultDialConfig()
		change(&c)
		if _, err := NewDialer(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	bad(func(c *DialConfig) { c.Timeout = 0 }, "timeout")
	bad(func(c *DialConfig) { c.TLS = "" }, "mode")
	bad(func(c *DialConfig) { c.TLS = TLSVerifyCA }, "CA file")
	bad(func(c *DialConfig) { c.TLS = TLSVerifyFull; c.CAFile = "/nonexistent" }, "no such file")
	bad(func(c *DialConfig) { c.TLS = TLSVerifyFull; c.CAFile = junk }, "no certificate")
	bad(func(c *DialConfig) { c.CertFile = junk }, "both")
	bad(func(c *DialConfig) { c.TLS, c.CertFile, c.KeyFile = TLSRequire, junk, junk }, "client certificate")
}

// fake accepts one connection and hands it to talk.
func fake(t *testing.T, talk func(net.Conn)) topology.Node {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // the clean-up waits for it
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		talk(c)
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return topology.Node{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port}
}

func TestASilentServerIsGivenUp(t *testing.T) {
	hang := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for _, mode := range []TLSMode{TLSDisable, TLSRequire} {
		cfg := DefaultDialConfig()
		cfg.Timeout, cfg.TLS = 50*time.Millisecond, mode
		d, _ := NewDialer(cfg)
		_, _, err := d.DialConn(context.Background(), DialRequest{Node: fake(t, hang), User: "u"})
		if err == nil || !strings.Contains(err.Error(), "no answer within 50ms") {
			t.Error(mode, err)
		}
		if err := d.Cancel(context.Background(), fake(t, hang), 1, []byte("abcd")); err == nil || !strings.Contains(err.Error(), "no answer") {
			t.Error(mode, err)
		}
	}
	d, _ := NewDialer(DefaultDialConfig())
	ctx, cancel := context.WithCancel(context.Background())
	node := fake(t, func(c net.Conn) { cancel(); hang(c) })
	if _, _, err := d.DialConn(ctx, DialRequest{Node: node, User: "u"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAServerWithoutTLSIsRefusedWhenTLSIsRequired(t *testing.T) {
	for _, c := range []struct{ answer, want string }{{"N", "offers no TLS"}, {"Eoops", "answers the TLS request"}, {"S\x00\x00junk", "handshake"}} {
		cfg := DefaultDialConfig()
		cfg.TLS = TLSRequire
		d, _ := NewDialer(cfg)
		node := fake(t, func(conn net.Conn) {
			_, _ = io.CopyN(io.Discard, conn, 8)
			_, _ = io.WriteString(conn, c.answer)
		})
		_, _, err := d.DialConn(context.Background(), DialRequest{Node: node, User: "u"})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "oops") {
			t.Errorf("%q: %v", c.answer, err)
		}
	}
}

func TestACancelRequestCarriesLongSecrets(t *testing.T) {
	got := make(chan []byte, 1)
	node := fake(t, func(c net.Conn) {
		b := make([]byte, 12+256)
		n, _ := io.ReadFull(c, b)
		got <- b[:n]
	})
	d, _ := NewDialer(DefaultDialConfig())
	secret := bytes.Repeat([]byte{9}, 256)
	if err := d.Cancel(context.Background(), node, 7, secret); err != nil {
		t.Fatal(err)
	}
	pid, sec, ok := wire.ReadCancel(<-got)
	if !ok || pid != 7 || !bytes.Equal(sec, secret) {
		t.Error(pid, sec, ok)
	}
}

func FuzzLogin(f *testing.F) {
	for _, s := range []string{
		authMsg(0, "") + msg('S', "a\x00b\x00") + msg('K', "12345678") + msg('Z', "I"),
		authMsg(10, askSASL) + authMsg(11, scram1), authMsg(5, "salt") + msg('E', "SFATAL\x00C28P01\x00\x00"), authMsg(3, ""),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, says []byte) {
		m := machine(t, Credential{Password: "pw"}, "")
		m.scram = nil
		login, err := converse(&script{Reader: bytes.NewReader(says)}, m)
		if (err == nil) != (login != nil) {
			t.Fatal(login, err)
		}
		if m.phase == loginProved {
			t.Fatal("a server without the verifier was believed")
		}
	})
}
