package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Login is what a line of a password file is looked up by.
type Login struct {
	Host     string // as configured; a folder for Unix sockets
	Port     string
	Database string
	User     string
}

// FindPassword looks a login up in a file in the format of .pgpass: one
// host:port:database:user:password per line, first match wins, * matches all, a backslash
// protects ":" and "\". The file is read each time, so a change needs no reload. A file that
// others may read is an error, a missing one just has no password.
func FindPassword(file string, l Login) (password string, found bool, err error) {
	if file == "" {
		return "", false, nil
	}
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("password file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", false, fmt.Errorf("password file %s is no regular file", file)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", false, fmt.Errorf("password file %s: others have access, run chmod 0600 on it", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", false, fmt.Errorf("password file: %w", err)
	}
	password, found = findPassword(string(text), l)
	return password, found, nil
}

func findPassword(text string, l Login) (string, bool) {
	if strings.HasPrefix(l.Host, "/") {
		l.Host = "localhost" // as libpq says of its default socket folder
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		rest, ok := line, true
		for _, want := range []string{l.Host, l.Port, l.Database, l.User} {
			var field string
			var star bool
			field, star, rest, ok = passField(rest)
			if ok = ok && (star || field == want); !ok {
				break
			}
		}
		if !ok {
			continue
		}
		return unescape(rest), true
	}
	return "", false
}

// passField takes a field and its colon off the front of a line. star: it was a lone *.
func passField(line string) (field string, star bool, rest string, ok bool) {
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case ':':
			return unescape(line[:i]), line[:i] == "*", line[i+1:], true
		}
	}
	return "", false, "", false
}

// unescape removes the backslashes; the password is the rest of the line, colons included.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		out = append(out, s[i])
	}
	return string(out)
}
