package pgnode

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestAConninfoKeepsWhatNobodyUnderstands(t *testing.T) {
	was, err := ParseConninfo(`user=repl password = 'it''s' host=a.example,b.example port=5432,5433 sslmode=verify-full gssencmode = disable channel_binding='require' application_name=walreceiver`)
	if err == nil {
		t.Errorf("'it''s' is no value of libpq's, and was read as %q", was.Get("password"))
	}
	was, err = ParseConninfo(`user=repl password = 'it\'s \\ a \secret' host=a.example,b.example hostaddr=10.0.0.1 port=5432,5433 sslmode=verify-full krbsrvname='' channel_binding=require application_name=walreceiver`)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Upstream{Host: "fe80::1", Port: 5444, AppName: "stb 42"}.Conninfo(was)
	if err != nil {
		t.Fatal(err)
	}
	const want = `user='repl' password='it\'s \\ a secret' host='fe80::1' port='5444' sslmode='verify-full' krbsrvname='' channel_binding='require' application_name='stb 42'`
	if c.String() != want {
		t.Errorf("got  %s\nwant %s", c, want)
	}
	if c.Upstream() != "[fe80::1]:5444" {
		t.Error(c.Upstream())
	}
	cfg, err := pgconn.ParseConfig(strings.ReplaceAll(c.Without("channel_binding").String(), "verify-full", "disable"))
	if err != nil || cfg.Password != `it's \ a secret` {
		t.Errorf("%+v, %v", cfg, err)
	}
	again, err := ParseConninfo(c.String())
	if err != nil || again.String() != c.String() {
		t.Errorf("read again: %s, %v", again, err)
	}
}

func TestAConninfoMayBeAURI(t *testing.T) {
	c, err := ParseConninfo("postgresql://repl:p%40ss@[::1]:5433/db?sslmode=require")
	if err != nil || c.Get("password") != "p@ss" || c.Upstream() != "[::1]:5433" || c.Get("sslmode") != "require" || c.Get("dbname") != "db" {
		t.Errorf("%v, %v", c, err)
	}
}

func TestAnErrorOfAConninfoDoesNotQuoteIt(t *testing.T) {
	for _, bad := range []string{"password='secret", "secret", "postgresql://u:secret@h:x y/%zz", "a=b secret", strings.Repeat("secret=1 ", 10_000)} {
		c, err := ParseConninfo(bad)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.30s: %v, %v", bad, c, err)
		}
	}
	if _, err := (Upstream{Host: "h", Port: 1}).Conninfo(nil); err != ErrNoCredentials {
		t.Error(err)
	}
}

func FuzzConninfo(f *testing.F) {
	f.Add(`host='a b' port=5 password=\'x`)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseConninfo(s)
		if err != nil || strings.HasPrefix(s, "postgres") {
			return
		}
		again, err := ParseConninfo(c.String())
		if err != nil || again.String() != c.String() {
			t.Errorf("%q: %q, then %q, %v", s, c, again, err)
		}
	})
}
