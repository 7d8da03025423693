package pgnode

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Conninfo is libpq's connection string as pairs in their order, so that what nobody here
// understands survives a change of the host. It may hold a password: its String is for
// primary_conninfo alone, never for a log or an error. The nil Conninfo is the empty string.
type Conninfo []Param

// Param is one keyword of a Conninfo with its value.
type Param struct{ Key, Value string }

// maxConninfo bounds what ParseConninfo takes, in bytes.
const maxConninfo = 64 << 10

// ErrConninfo is why a connection string is none. It does not quote the string.
var ErrConninfo = errors.New("not a libpq connection string")

// ParseConninfo reads both of libpq's forms: keyword = 'value' … and postgresql://….
func ParseConninfo(s string) (Conninfo, error) {
	if len(s) > maxConninfo {
		return nil, fmt.Errorf("%w: %d bytes", ErrConninfo, len(s))
	}
	if strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://") {
		return parseURI(s)
	}
	var c Conninfo
	rest := strings.TrimLeft(s, conninfoSpace)
	for rest != "" {
		key, after, ok := strings.Cut(rest, "=")
		key = strings.TrimRight(key, conninfoSpace)
		if !ok || key == "" || strings.ContainsAny(key, conninfoSpace+`'\`) {
			return nil, fmt.Errorf("%w: keyword %d has no \"=\"", ErrConninfo, len(c)+1)
		}
		value, left, err := conninfoValue(strings.TrimLeft(after, conninfoSpace))
		if err != nil {
			return nil, err
		}
		c = append(c, Param{key, value})
		rest = strings.TrimLeft(left, conninfoSpace)
	}
	return c, nil
}

const conninfoSpace = " \t\n\r\f\v"

// conninfoValue takes one value, quoted or not, off the front of s (fe-connect.c,
// conninfo_parse): a backslash makes the next character ordinary in both.
func conninfoValue(s string) (value, rest string, err error) {
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == '\\':
			// A lone one at the end stands for nothing.
		case quoted && s[i] == '\'':
			return b.String(), s[i+1:], nil
		case !quoted && strings.IndexByte(conninfoSpace, s[i]) >= 0:
			return b.String(), s[i:], nil
		default:
			b.WriteByte(s[i])
		}
	}
	if quoted {
		return "", "", fmt.Errorf("%w: a quoted value does not end", ErrConninfo)
	}
	return b.String(), "", nil
}

func parseURI(s string) (Conninfo, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("%w: malformed URI", ErrConninfo) // err quotes the string
	}
	var c Conninfo
	add := func(key, value string) {
		if value != "" {
			c = append(c, Param{key, value})
		}
	}
	if u.User != nil {
		add("user", u.User.Username())
		password, _ := u.User.Password()
		add("password", password)
	}
	add("host", u.Hostname())
	add("port", u.Port())
	add("dbname", strings.TrimPrefix(u.Path, "/"))
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: malformed URI", ErrConninfo)
	}
	for key, values := range query {
		add(key, values[len(values)-1])
	}
	return c, nil
}

// Get is the value of key, "" when it is not there; as in libpq the last one wins.
func (c Conninfo) Get(key string) string {
	for i := len(c) - 1; i >= 0; i-- {
		if c[i].Key == key {
			return c[i].Value
		}
	}
	return ""
}

// With returns a copy in which key has value, in its old place; value "" leaves it out.
func (c Conninfo) With(key, value string) Conninfo {
	var out Conninfo
	placed := value == ""
	for _, p := range c {
		if p.Key != key {
			out = append(out, p)
		} else if !placed {
			out, placed = append(out, Param{key, value}), true
		}
	}
	if !placed {
		out = append(out, Param{key, value})
	}
	return out
}

// Default is With where c has no value for key.
func (c Conninfo) Default(key, value string) Conninfo {
	if c.Get(key) != "" || value == "" {
		return c
	}
	return c.With(key, value)
}

// Without returns a copy that has none of the keys.
func (c Conninfo) Without(keys ...string) Conninfo {
	for _, key := range keys {
		c = c.With(key, "")
	}
	return c
}

// String is the keyword form, every value quoted.
func (c Conninfo) String() string {
	var b strings.Builder
	for i, p := range c {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p.Key + "='" + quoter.Replace(p.Value) + "'")
	}
	return b.String()
}

// Upstream is the "host:port" that the string leads to; "" when it names no host.
func (c Conninfo) Upstream() string {
	host, port := c.Get("host"), c.Get("port")
	if host == "" {
		host = c.Get("hostaddr")
	}
	if host == "" {
		return ""
	}
	if port == "" {
		port = "5432"
	}
	return Address(host, port)
}

// Address is "host:port" without resolving anything; IPv6 hosts in brackets.
func Address(host, port string) string {
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return ""
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + port
}
