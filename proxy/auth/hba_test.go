package auth

import (
	"net/netip"
	"strings"
	"testing"
)

func TestRulesMeanWhatPgHbaMeans(t *testing.T) {
	lan := netip.MustParseAddr("192.168.5.7")
	six := netip.MustParseAddr("fd00::7")
	host := func(db, user, addr string) Rule {
		return Rule{Type: "host", Database: db, User: user, Address: addr, Method: "scram-sha-256"}
	}
	typed := func(kind string) Rule {
		r := host("all", "all", "all")
		r.Type = kind
		return r
	}
	anna := Conn{Addr: lan, Database: "shop", User: "anna"}
	for _, c := range []struct {
		name  string
		rule  Rule
		conn  Conn
		match bool
	}{
		{"all", host("all", "all", "all"), anna, true},
		{"name", host("shop", "anna", "all"), anna, true},
		{"names are case sensitive", host("Shop", "anna", "all"), anna, false},
		{"list", host("x, shop,y", "bob ,anna", "all"), anna, true},
		{"not in list", host("x,y", "all", "all"), anna, false},
		{"other user", host("all", "bob", "all"), anna, false},
		{"sameuser", host("sameuser", "all", "all"), Conn{Addr: lan, Database: "anna", User: "anna"}, true},
		{"sameuser, other database", host("sameuser", "all", "all"), anna, false},
		{"sameuser or a name", host("sameuser,shop", "all", "all"), anna, true},
		{"quoted all is a name", host(`"all"`, "all", "all"), anna, false},
		{"a database called all", host(`"all"`, "all", "all"), Conn{Addr: lan, Database: "all", User: "x"}, true},
		{"a user called all", host("all", `"all"`, "all"), Conn{Addr: lan, Database: "x", User: "all"}, true},
		{"a user called +x", host("all", `"+x"`, "all"), Conn{Addr: lan, Database: "x", User: "+x"}, true},
		{"comma and quote in a name", host(`"a,""b"`, "all", "all"), Conn{Addr: lan, Database: `a,"b`, User: "x"}, true},
		{"replication is not all", host("all", "all", "all"), Conn{Addr: lan, User: "x", Replication: true}, false},
		{"replication", host("replication", "all", "all"), Conn{Addr: lan, User: "x", Replication: true}, true},
		{"a database called replication", host("replication", "all", "all"), Conn{Addr: lan, Database: "replication", User: "x"}, false},
		{"the quoted name replication", host(`"replication"`, "all", "all"), Conn{Addr: lan, Database: "replication", User: "x"}, true},
		{"CIDR", host("all", "all", "192.168.0.0/16"), anna, true},
		{"CIDR with host bits", host("all", "all", "192.168.5.99/24"), anna, true},
		{"CIDR elsewhere", host("all", "all", "192.168.6.0/24"), anna, false},
		{"everything of one family", host("all", "all", "0.0.0.0/0"), anna, true},
		{"the other family", host("all", "all", "::/0"), anna, false},
		{"IPv6", host("all", "all", "fd00::/8"), Conn{Addr: six, Database: "x", User: "x"}, true},
		{"mapped IPv4", host("all", "all", "192.168.0.0/16"), Conn{Addr: netip.AddrFrom16(lan.As16()), Database: "x", User: "x"}, true},
		{"mask", host("all", "all", "192.168.5.0 255.255.255.0"), anna, true},
		{"mask elsewhere", host("all", "all", "192.168.6.0   255.255.255.0"), anna, false},
		{"mask of zeros", host("all", "all", "0.0.0.0 0.0.0.0"), anna, true},
		{"IPv6 mask", host("all", "all", "fd00:: ff00::"), Conn{Addr: six, Database: "x", User: "x"}, true},
		{"one address", host("all", "all", "192.168.5.7"), anna, true},
		{"another address", host("all", "all", "192.168.5.8"), anna, false},
		{"hostssl without TLS", typed("hostssl"), anna, false},
		{"hostssl with TLS", typed("hostssl"), Conn{Addr: lan, Database: "x", User: "x", TLS: true}, true},
		{"hostnossl without TLS", typed("hostnossl"), anna, true},
		{"hostnossl with TLS", typed("hostnossl"), Conn{Addr: lan, Database: "x", User: "x", TLS: true}, false},
		{"local and TCP", Rule{Type: "local", Database: "all", User: "all", Method: "trust"}, anna, false},
		{"local and socket", Rule{Type: "local", Database: "all", User: "all", Method: "trust"}, Conn{Database: "x", User: "x"}, true},
		{"host and socket", host("all", "all", "all"), Conn{Database: "x", User: "x"}, false},
	} {
		rules, err := ParseRules([]Rule{c.rule})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if _, _, ok := rules.Match(c.conn); ok != c.match {
			t.Errorf("%s: match = %v", c.name, ok)
		}
	}
}

func TestTheFirstMatchingRuleWinsAndNoneRejects(t *testing.T) {
	rules, err := ParseRules([]Rule{
		{Type: "host", Database: "all", User: "mallory", Address: "all", Method: "reject"},
		{Type: "host", Database: "all", User: "all", Address: "127.0.0.1/32", Method: "trust"},
		{Type: "host", Database: "shop", User: "all", Address: "all", Method: "scram-sha-256"},
	})
	if err != nil {
		t.Fatal(err)
	}
	here, there := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.1")
	for _, c := range []struct {
		conn   Conn
		method Method
		index  int
		ok     bool
	}{
		{Conn{Addr: here, Database: "shop", User: "mallory"}, Reject, 0, true},
		{Conn{Addr: here, Database: "shop", User: "anna"}, Trust, 1, true},
		{Conn{Addr: there, Database: "shop", User: "anna"}, ScramSHA256, 2, true},
		{Conn{Addr: there, Database: "other", User: "anna"}, Reject, -1, false},
	} {
		if m, i, ok := rules.Match(c.conn); m != c.method || i != c.index || ok != c.ok {
			t.Errorf("%+v: %v %d %v", c.conn, m, i, ok)
		}
	}
	var none *Rules
	if m, _, ok := none.Match(Conn{}); ok || m != Reject {
		t.Error("no rules let somebody in")
	}
}

func TestTheDefaultRulesAskForAPassword(t *testing.T) {
	rules, err := ParseRules(DefaultRules())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []Conn{{}, {Addr: netip.MustParseAddr("::1"), Database: "x", User: "y"}} {
		if m, _, ok := rules.Match(c); !ok || m != ScramSHA256 {
			t.Errorf("%+v: %v", c, m)
		}
	}
}

func TestABadRuleIsRefusedWithASentence(t *testing.T) {
	good := Rule{Type: "host", Database: "all", User: "all", Address: "all", Method: "trust"}
	for _, c := range []struct {
		change func(*Rule)
		want   string
	}{
		{func(r *Rule) { r.Type = "" }, `type ""`},
		{func(r *Rule) { r.Type = "HOST" }, `type "HOST"`},
		{func(r *Rule) { r.Type = "hostgssenc" }, "GSSAPI"},
		{func(r *Rule) { r.Method = "" }, `method ""`},
		{func(r *Rule) { r.Method = "md5" }, "password_encryption"},
		{func(r *Rule) { r.Method = "password" }, "clear text"},
		{func(r *Rule) { r.Method = "cert" }, "hostssl"},
		{func(r *Rule) { r.Method = "ldap" }, "not supported"},
		{func(r *Rule) { r.Database = "" }, "database: empty"},
		{func(r *Rule) { r.Database = "a,,b" }, "empty name"},
		{func(r *Rule) { r.Database = "a," }, "empty name"},
		{func(r *Rule) { r.Database = "samerole" }, "samerole"},
		{func(r *Rule) { r.Database = "@dbs" }, "lists in files"},
		{func(r *Rule) { r.Database = `"a` }, "not closed"},
		{func(r *Rule) { r.Database = `"a"b` }, "comma is missing"},
		{func(r *Rule) { r.Database = `a b` }, "double quotes"},
		{func(r *Rule) { r.User = "+admins" }, "membership"},
		{func(r *Rule) { r.User = "/^a" }, "regular"},
		{func(r *Rule) { r.Address = "" }, "address: empty"},
		{func(r *Rule) { r.Address = "samenet" }, "CIDR"},
		{func(r *Rule) { r.Address = "db.example.com" }, "host names"},
		{func(r *Rule) { r.Address = "10.0.0.0/33" }, "CIDR"},
		{func(r *Rule) { r.Address = "10.0.0.0 255.0.255.0" }, "come first"},
		{func(r *Rule) { r.Address = "10.0.0.0 ffff::" }, "mask"},
		{func(r *Rule) { r.Address = "10.0.0.0 255.0.0.0 x" }, "want an address"},
		{func(r *Rule) { r.Type = "local" }, `"local"`},
	} {
		r := good
		c.change(&r)
		_, err := ParseRules([]Rule{good, r})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "hba rule 2: ") {
			t.Errorf("%+v: %v, want %q", r, err, c.want)
		}
	}
}
