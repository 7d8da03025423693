package auth

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPasswordFilesAreReadAsLibpqDoes(t *testing.T) {
	text := strings.Join([]string{
		"# comment",
		"",
		"nonsense",
		"10.0.0.1:5432:shop:anna:first",
		"10.0.0.1:5432:shop:anna:second",
		`10.0.0.2:*:*:we\:ird\\:a\:b:c\\`,
		"fd00\\:\\:1:5432:*:anna:six ",
		"localhost:5432:*:anna:socket\r",
		`\*:1:x:y:star`,
		"*:*:*:empty:",
		"*:*:*:last:end",
	}, "\n")
	for _, c := range []struct {
		login Login
		want  string
		found bool
	}{
		{Login{"10.0.0.1", "5432", "shop", "anna"}, "first", true},
		{Login{"10.0.0.1", "5433", "shop", "anna"}, "", false},
		{Login{"10.0.0.2", "1", "any", `we:ird\`}, `a:b:c\`, true},
		{Login{"fd00::1", "5432", "x", "anna"}, "six ", true},
		{Login{"/var/run/postgresql", "5432", "x", "anna"}, "socket", true},
		{Login{"h", "1", "x", "y"}, "", false},
		{Login{"*", "1", "x", "y"}, "star", true},
		{Login{"h", "1", "x", "empty"}, "", true},
		{Login{"h", "1", "x", "last"}, "end", true},
		{Login{"h", "1", "x", "nobody"}, "", false},
	} {
		if got, found := findPassword(text, c.login); got != c.want || found != c.found {
			t.Errorf("%+v: %q %v, want %q %v", c.login, got, found, c.want, c.found)
		}
	}
}

func TestAPasswordFileThatOthersCanReadIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pgpass")
	login := Login{"h", "1", "d", "u"}
	if _, found, err := FindPassword(file, login); found || err != nil {
		t.Fatalf("missing file: %v %v", found, err)
	}
	if err := os.WriteFile(file, []byte("*:*:*:*:pw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if pw, found, err := FindPassword(file, login); pw != "pw" || !found || err != nil {
		t.Fatal(pw, found, err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, found, err := FindPassword(file, login); found || err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Fatal(found, err)
	}
	if _, found, err := FindPassword(filepath.Dir(file), login); found || err == nil {
		t.Fatal(found, err)
	}
	if _, found, err := FindPassword("", login); found || err != nil {
		t.Fatal(found, err)
	}
}

func FuzzPasswordFile(f *testing.F) {
	f.Add("a:b:c:d:e\\:f\n#\n*:*:*:*:x", "a")
	f.Fuzz(func(t *testing.T, text, host string) {
		if pw, found := findPassword(text, Login{host, "b", "c", "d"}); !found && pw != "" || len(pw) > len(text) {
			t.Fatal(pw)
		}
	})
}
