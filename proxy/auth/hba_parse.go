package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

func parseRule(in *Rule) (rule, error) {
	r := rule{}
	var err error
	if r.transport, err = parseTransport(in.Type); err != nil {
		return rule{}, err
	}
	if r.method, err = parseMethod(in.Method); err != nil {
		return rule{}, err
	}
	if r.databases, err = parseNames(in.Database, databaseWord); err != nil {
		return rule{}, fmt.Errorf("database: %w", err)
	}
	if r.users, err = parseNames(in.User, userWord); err != nil {
		return rule{}, fmt.Errorf("user: %w", err)
	}
	if r.transport == local {
		if strings.TrimSpace(in.Address) != "" {
			return rule{}, errors.New(`address: a rule of type "local" has none`)
		}
		return r, nil
	}
	if r.anywhere, r.prefixes, err = parseAddress(in.Address); err != nil {
		return rule{}, fmt.Errorf("address: %w", err)
	}
	return r, nil
}

func parseTransport(s string) (transport, error) {
	switch s {
	case "local":
		return local, nil
	case "host":
		return host, nil
	case "hostssl":
		return hostSSL, nil
	case "hostnossl":
		return hostNoSSL, nil
	case "hostgssenc", "hostnogssenc":
		return local, fmt.Errorf("type %q: GSSAPI encryption is not supported; use host, hostssl or hostnossl", s)
	}
	return local, fmt.Errorf("type %q: want local, host, hostssl or hostnossl", s)
}

func parseMethod(s string) (Method, error) {
	switch s {
	case "trust":
		return Trust, nil
	case "reject":
		return Reject, nil
	case "scram-sha-256":
		return ScramSHA256, nil
	case "password":
		return Reject, errors.New(`method "password" would send passwords in clear text; use scram-sha-256`)
	case "md5":
		return Reject, errors.New(`method "md5" is not supported; set password_encryption = 'scram-sha-256' on the servers, set the passwords anew and use scram-sha-256`)
	case "cert":
		return Reject, errors.New(`method "cert" is not supported; use type hostssl with scram-sha-256`)
	case "peer", "ident", "gss", "sspi", "ldap", "radius", "pam", "bsd", "oauth":
		return Reject, fmt.Errorf("method %q is not supported; want scram-sha-256, trust or reject", s)
	}
	return Reject, fmt.Errorf("method %q: want scram-sha-256, trust or reject", s)
}

// parseNames splits a comma-separated list. Double quotes take a name literally, "" inside them is
// one quote. check refuses unquoted words that mean something else in pg_hba.conf.
func parseNames(s string, check func(word string) error) ([]name, error) {
	if strings.TrimSpace(s) == "" {
		return nil, errors.New(`empty; use "all" for any`)
	}
	var out []name
	for rest, more := s, true; more; {
		var n name
		var err error
		n, rest, more, err = nextName(rest)
		if err != nil {
			return nil, err
		}
		if !n.quoted {
			if err := check(n.text); err != nil {
				return nil, err
			}
		}
		out = append(out, n)
	}
	return out, nil
}

// nextName takes one name and the comma behind it; more says that a comma was there.
func nextName(s string) (n name, rest string, more bool, err error) {
	s = strings.TrimLeft(s, " \t")
	if !strings.HasPrefix(s, `"`) {
		word, rest, more := strings.Cut(s, ",")
		word = strings.TrimRight(word, " \t")
		switch {
		case word == "":
			return name{}, "", false, errors.New("an empty name in the list")
		case strings.ContainsAny(word, "\" \t\r\n\x00"):
			return name{}, "", false, fmt.Errorf("%q: names with spaces or quotes go in double quotes", word)
		}
		return name{text: word}, rest, more, nil
	}
	var b strings.Builder
	for s = s[1:]; ; {
		i := strings.IndexByte(s, '"')
		if i < 0 {
			return name{}, "", false, errors.New("a double quote is not closed")
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		if !strings.HasPrefix(s, `"`) {
			break
		}
		b.WriteByte('"')
		s = s[1:]
	}
	s = strings.TrimLeft(s, " \t")
	if s != "" && s[0] != ',' {
		return name{}, "", false, errors.New("a comma is missing after a quoted name")
	}
	if strings.ContainsRune(b.String(), 0) {
		return name{}, "", false, errors.New("a zero byte in a name")
	}
	rest, more = strings.CutPrefix(s, ",")
	return name{text: b.String(), quoted: true}, rest, more, nil
}

func databaseWord(w string) error {
	switch {
	case w == "samerole" || w == "samegroup":
		return fmt.Errorf("%s is not supported, because role membership is not known here; name the databases", w)
	case strings.HasPrefix(w, "@"):
		return fmt.Errorf("%s: lists in files are not supported; name the databases", w)
	case strings.HasPrefix(w, "/"):
		return fmt.Errorf("%s: regular expressions are not supported; name the databases", w)
	}
	return nil
}

func userWord(w string) error {
	switch {
	case strings.HasPrefix(w, "+"):
		return fmt.Errorf("%s: role membership is not known here; name the users", w)
	case strings.HasPrefix(w, "@"):
		return fmt.Errorf("%s: lists in files are not supported; name the users", w)
	case strings.HasPrefix(w, "/"):
		return fmt.Errorf("%s: regular expressions are not supported; name the users", w)
	}
	return nil
}

// parseAddress reads "all", an address, CIDR, or "address mask".
func parseAddress(s string) (anywhere bool, prefixes []netip.Prefix, err error) {
	fields := strings.Fields(s)
	switch {
	case len(fields) == 0:
		return false, nil, errors.New(`empty; use "all" for any`)
	case len(fields) > 2:
		return false, nil, fmt.Errorf("%q: want an address, CIDR, or an address and a mask", s)
	case len(fields) == 2:
		p, err := parseMasked(fields[0], fields[1])
		return false, []netip.Prefix{p}, err
	case fields[0] == "all":
		return true, nil, nil
	case fields[0] == "samehost" || fields[0] == "samenet":
		return false, nil, fmt.Errorf("%s is not supported; write the network as CIDR", s)
	}
	word := fields[0]
	if !strings.Contains(word, "/") {
		addr, err := netip.ParseAddr(word)
		if err != nil {
			return false, nil, fmt.Errorf("%q is neither CIDR nor an address; host names are not supported", word)
		}
		addr = addr.Unmap().WithZone("")
		return false, []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	p, err := netip.ParsePrefix(word)
	if err != nil {
		return false, nil, fmt.Errorf("%q is not CIDR such as 10.0.0.0/8 or fd00::/8", word)
	}
	if p.Addr().Is4In6() {
		return false, nil, fmt.Errorf("%q: write IPv4 networks as IPv4", word)
	}
	return false, []netip.Prefix{p.Masked()}, nil
}

// parseMasked reads the two-column form of pg_hba.conf. A mask with holes is refused; PostgreSQL
// takes it, but nobody means it.
func parseMasked(address, mask string) (netip.Prefix, error) {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is not an address", address)
	}
	m, err := netip.ParseAddr(mask)
	if err != nil || m.Zone() != "" || m.BitLen() != a.BitLen() {
		return netip.Prefix{}, fmt.Errorf("%q is not a mask for %s", mask, address)
	}
	bits, holes := 0, false
	for i, b := range m.AsSlice() {
		for j := range 8 {
			switch set := b&(0x80>>j) != 0; {
			case !set:
			case bits == i*8+j:
				bits++
			default:
				holes = true
			}
		}
	}
	if holes {
		return netip.Prefix{}, fmt.Errorf("%q: the ones of a mask come first", mask)
	}
	return netip.PrefixFrom(a, bits).Masked(), nil
}
