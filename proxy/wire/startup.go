package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Request codes that stand where a start-up packet has its protocol version.
const (
	CodeCancel     = 80877102
	CodeSSL        = 80877103
	CodeGSSENC     = 80877104
	Version30      = 3 << 16
	Version32      = 3<<16 | 2
	protocolPrefix = "_pq_."
)

// Startup is a client's first real packet.
type Startup struct {
	Version uint32
	// Parameters in the order in which they came; user, database, options and replication included.
	Parameters []Parameter
	// Unknown are the protocol options (with prefix "_pq_.") that were asked for; none is supported.
	Unknown []string
}

// Parameter is a name and its value as the client wrote them.
type Parameter struct{ Name, Value string }

// Get is the last value given for name, "" when there is none.
func (s *Startup) Get(name string) string {
	value := ""
	for _, p := range s.Parameters {
		if p.Name == name {
			value = p.Value
		}
	}
	return value
}

// StartupSize reads the length of a start-up packet, which has no type byte. ok is false while
// fewer than four bytes have come.
func StartupSize(b []byte) (size int, ok bool, err error) {
	if len(b) < 4 {
		return 0, false, nil
	}
	n := binary.BigEndian.Uint32(b)
	if n < 8 || n > MaxStartup {
		return 0, false, ErrLength
	}
	return int(n), true, nil
}

// StartupCode is the request code or protocol version of a complete start-up packet.
func StartupCode(packet []byte) uint32 { return binary.BigEndian.Uint32(packet[4:]) }

// ReadCancel reads process id and secret of a complete CancelRequest packet.
func ReadCancel(packet []byte) (pid uint32, secret []byte, ok bool) {
	if len(packet) < 16 || len(packet) > 12+256 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint32(packet[8:]), packet[12:], true
}

// ReadStartup reads a complete start-up packet of protocol 3.
func ReadStartup(packet []byte) (*Startup, error) {
	s := &Startup{Version: StartupCode(packet)}
	rest := packet[8:]
	for {
		name, r, ok := CString(rest)
		if !ok {
			return nil, errors.New("invalid startup packet layout: expected terminator as last byte")
		}
		if len(name) == 0 {
			if len(r) != 0 {
				return nil, errors.New("invalid startup packet layout: expected terminator as last byte")
			}
			return s, nil
		}
		value, r, ok := CString(r)
		if !ok {
			return nil, fmt.Errorf("invalid startup packet layout: parameter %q has no value", name)
		}
		rest = r
		if strings.HasPrefix(string(name), protocolPrefix) {
			s.Unknown = append(s.Unknown, string(name))
			continue
		}
		s.Parameters = append(s.Parameters, Parameter{string(name), string(value)})
	}
}

// SplitOptions reads the start-up parameter "options" as PostgreSQL does: words separated by
// blanks, a backslash protects the next character, "-c name=value" or "--name=value" set a
// parameter ('-' in a long name stands for '_').
func SplitOptions(options string) ([]Parameter, error) {
	var out []Parameter
	words := optionWords(options)
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "-c" && i+1 < len(words):
			i++
			w = words[i]
		case strings.HasPrefix(w, "-c") && len(w) > 2:
			w = w[2:]
		case strings.HasPrefix(w, "--"):
			w = w[2:]
		default:
			return nil, fmt.Errorf("option %q is not supported: write -c name=value", w)
		}
		name, value, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("option %q needs a value: write -c name=value", w)
		}
		out = append(out, Parameter{strings.ReplaceAll(name, "-", "_"), value})
	}
	return out, nil
}

func optionWords(s string) []string {
	var words []string
	var word []byte
	in := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f':
			if in {
				words, word, in = append(words, string(word)), nil, false
			}
		case c == '\\' && i+1 < len(s):
			i++
			word, in = append(word, s[i]), true
		default:
			word, in = append(word, c), true
		}
	}
	if in {
		words = append(words, string(word))
	}
	return words
}
