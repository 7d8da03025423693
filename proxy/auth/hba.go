package auth

import (
	"fmt"
	"net/netip"
)

// Method is what a rule asks of a client.
type Method int

const (
	// Reject refuses the connection; it is also the answer when no rule matches.
	Reject Method = iota
	// Trust lets the client in as whoever it says it is. The proxy then needs credentials of its
	// own for the servers.
	Trust
	// ScramSHA256 asks for the password by SCRAM-SHA-256.
	ScramSHA256
)

func (m Method) String() string {
	switch m {
	case Trust:
		return "trust"
	case ScramSHA256:
		return "scram-sha-256"
	}
	return "reject"
}

// Rule is one [[hba]] table: a line of pg_hba.conf with named fields and the same meaning.
// Database and User are comma-separated lists; a name in double quotes loses its special meaning.
type Rule struct {
	// Type is local (Unix socket), host, hostssl (with TLS only) or hostnossl (without).
	Type string `toml:"type"`
	// Database is all, sameuser, replication (physical replication connections), or names.
	Database string `toml:"database"`
	// User is all or names.
	User string `toml:"user"`
	// Address is all, an address, CIDR ("10.0.0.0/8", "::1/128") or address and mask
	// ("10.0.0.0 255.0.0.0"). Empty for type local. Host names are refused: they would need a
	// DNS question for each login.
	Address string `toml:"address"`
	// Method is trust, reject or scram-sha-256.
	Method string `toml:"method"`
}

// DefaultRules asks everybody for a password.
func DefaultRules() []Rule {
	return []Rule{
		{Type: "local", Database: "all", User: "all", Method: "scram-sha-256"},
		{Type: "host", Database: "all", User: "all", Address: "all", Method: "scram-sha-256"},
	}
}

// Conn is what the rules look at.
type Conn struct {
	// Addr is the client's address; the zero Addr is a Unix socket.
	Addr netip.Addr
	// Database and User are as in the start-up packet.
	Database, User string
	// TLS says whether the connection is encrypted now.
	TLS bool
	// Replication says that the client asks for physical replication: only rules for the
	// database "replication" match. A logical one (replication=database) is an ordinary login.
	Replication bool
}

// Rules are checked rules, in order. Immutable; the nil *Rules rejects everybody.
type Rules struct{ rules []rule }

// rule is a Rule after parsing.
type rule struct {
	transport transport
	databases []name
	users     []name
	prefixes  []netip.Prefix
	anywhere  bool // address "all"
	method    Method
}

type transport int

const (
	local transport = iota
	host
	hostSSL
	hostNoSSL
)

// name is an element of a list; a quoted one is only a name.
type name struct {
	text   string
	quoted bool
}

func (n name) keyword(k string) bool { return !n.quoted && n.text == k }

// Match finds the first rule for a connection. ok is false when there is none: then the method
// is Reject and the index -1, and the client should read "no entry" instead of "rejects".
func (r *Rules) Match(c Conn) (method Method, index int, ok bool) {
	if r != nil {
		for i := range r.rules {
			if r.rules[i].matches(&c) {
				return r.rules[i].method, i, true
			}
		}
	}
	return Reject, -1, false
}

// Len is the number of rules.
func (r *Rules) Len() int {
	if r == nil {
		return 0
	}
	return len(r.rules)
}

func (r *rule) matches(c *Conn) bool {
	return r.transportMatches(c) && r.databaseMatches(c) && r.userMatches(c.User)
}

func (r *rule) transportMatches(c *Conn) bool {
	if !c.Addr.IsValid() || r.transport == local {
		return !c.Addr.IsValid() && r.transport == local
	}
	if r.transport == hostSSL && !c.TLS || r.transport == hostNoSSL && c.TLS {
		return false
	}
	if r.anywhere {
		return true
	}
	// A dual-stack listener reports IPv4 clients as ::ffff:a.b.c.d, and rules do not care about
	// interface zones.
	addr := c.Addr.Unmap().WithZone("")
	for _, p := range r.prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func (r *rule) databaseMatches(c *Conn) bool {
	for _, n := range r.databases {
		if c.Replication {
			if n.keyword("replication") {
				return true
			}
			continue
		}
		switch {
		case n.keyword("all"):
			return true
		case n.keyword("sameuser"):
			if c.Database == c.User {
				return true
			}
		case n.keyword("replication"): // a keyword, not a database of that name
		case n.text == c.Database:
			return true
		}
	}
	return false
}

func (r *rule) userMatches(user string) bool {
	for _, n := range r.users {
		if n.keyword("all") || n.text == user {
			return true
		}
	}
	return false
}

// ParseRules checks rules as a whole. The error names the first bad rule, counted from 1, and says
// what to write instead.
func ParseRules(in []Rule) (*Rules, error) {
	out := &Rules{rules: make([]rule, 0, len(in))}
	for i := range in {
		r, err := parseRule(&in[i])
		if err != nil {
			return nil, fmt.Errorf("hba rule %d: %w", i+1, err)
		}
		out.rules = append(out.rules, r)
	}
	return out, nil
}
