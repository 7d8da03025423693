package remote

import (
	"errors"
	"fmt"
	"strings"
)

// maxCommand bounds a command line. Linux takes at most 128 KiB in one argument, and the login
// shell gets the whole line as one.
const maxCommand = 120 << 10

// quote writes argv as words of a POSIX shell: whatever an argument holds, the shell hands on just
// that. No other text of a caller ever gets into a command line.
func quote(argv []string) (string, error) {
	if len(argv) == 0 || argv[0] == "" || strings.HasPrefix(argv[0], "-") {
		return "", errors.New("no command to run")
	}
	var b strings.Builder
	for i, arg := range argv {
		if strings.IndexByte(arg, 0) >= 0 {
			return "", fmt.Errorf("argument %d has a zero byte, which no program can be given", i)
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		quoteWord(&b, arg)
	}
	if b.Len() > maxCommand {
		return "", fmt.Errorf("the command has %d bytes, at most %d fit; give the rest on standard input", b.Len(), maxCommand)
	}
	return b.String(), nil
}

func quoteWord(b *strings.Builder, word string) {
	b.WriteByte('\'')
	b.WriteString(strings.ReplaceAll(word, `'`, `'\''`))
	b.WriteByte('\'')
}
