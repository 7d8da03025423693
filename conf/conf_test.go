package conf

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// minimal is the shortest file without a problem.
const minimal = `
[[cluster]]
name = "cluster01"
  [[cluster.node]]
  id = 1
  host = "127.0.0.1"
`

func problemsOf(t *testing.T, text string, environ ...string) []string {
	t.Helper()
	_, err := Parse("f.toml", text, environ)
	if err == nil {
		return nil
	}
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("Parse gave %T: %v, want Problems", err, err)
	}
	return strings.Split(problems.Error(), "\n")
}

func TestTheSampleIsTheDefaults(t *testing.T) {
	got, err := Parse("cstproxy.toml", Sample(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Parse("cstproxy.toml", minimal, nil)
	if err != nil {
		t.Fatal(err)
	}
	if changes := got.Diff(want); len(changes) > 0 {
		t.Errorf("the sample differs from the defaults (sample -> default): %v", changes)
	}
}

func TestTheSampleShowsEverySetting(t *testing.T) {
	got, err := Parse("cstproxy.toml", Sample(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range got.Settings() {
		if s.Origin.Kind == FromDefault {
			t.Errorf("the sample leaves %s out", s.Key)
		}
	}
	// The tables that have no default stand there commented out, and have to be right too.
	text := Sample()
	for section, keys := range sectionKeys(Default().mounts()) {
		if section != "listen" && section != "pool" && section != "routing.rule" {
			continue
		}
		_, after, found := strings.Cut(text, "# [["+section+"]]\n")
		if !found {
			t.Errorf("the sample says nothing of [[%s]]", section)
			continue
		}
		example, _, _ := strings.Cut(after, "\n\n")
		for _, key := range keys {
			if !strings.Contains(example, "# "+key) {
				t.Errorf("the sample's [[%s]] leaves %s out", section, key)
			}
		}
		uncommented := "[[" + section + "]]\n" + strings.ReplaceAll("\n"+example, "\n# ", "\n")
		if p := problemsOf(t, minimal+uncommented); p != nil {
			t.Errorf("the sample's [[%s]] has problems: %v", section, p)
		}
	}
}

func TestEveryProblemIsReportedAtOnceWithItsLine(t *testing.T) {
	got := problemsOf(t, `[proxy]
lisen = "0.0.0.0:9999"
pool_size = "many"
wait_timeout = 30
hold_writes = "soon"
max_turn_bytes = "64QB"
token = "12345678"

[admin]
listen = 8082

[[cluster]]
name = "a"
[[cluster.node]]
id = 1
host = "h"
prot = 5432
tags = { nofailovr = true }

[prxy]
x = 1
`)
	want := []string{
		`f.toml:2: unknown key "lisen" in [proxy]; the nearest known key is "listen"`,
		`f.toml:3: pool_size: "many" is not a whole number`,
		`f.toml:4: wait_timeout: 30 has no unit; write a duration like "30ms" or "30s"`,
		`f.toml:5: hold_writes: "soon" is not a duration; write it like "500ms", "10s" or "1h30m"`,
		`f.toml:6: max_turn_bytes: "64QB" has an unknown unit; the units are B, kB, MB, GB and TB`,
		`f.toml:7: unknown key "token" in [proxy]; it belongs in [admin]`,
		`f.toml:10: listen: 8082 is not a text in quotes`,
		`f.toml:17: unknown key "prot" in [cluster.node]; the nearest known key is "port"`,
		`f.toml:18: unknown key "nofailovr" in [cluster.node.tags]; the nearest known key is "nofailover"`,
		`f.toml:20: unknown section "prxy"; the nearest known section is "proxy"`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("problems:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWhatIsWrittenButCannotWorkIsReportedAtItsKey(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a value", "[proxy]\n\npool_size = 0\n" + minimal, `f.toml:3: pool_size 0: want at least 1`},
		{"a short token", minimal + "[admin]\ntoken = \"abc\"\n", `f.toml:8: token: 3 characters are too few; use at least 8, for example a UUID`},
		{"a bad address", "[admin]\nlisten = \"8082\"\n" + minimal, `f.toml:2: listen: "8082" is not an address; write it like "127.0.0.1:8082"`},
		{"a pool", minimal + "[[pool]]\nuser = \"a\"\n[[pool]]\nuser = \"b\"\npool_mode = \"x\"\n", `f.toml:11: pool 2: pool_mode "x": want "transaction" or "session"`},
		{"a listener", minimal + "[[listen]]\naddress = \":1\"\nmode = \"x\"\n", `f.toml:9: listen 1: mode "x": want "auto", "standby" or "primary"`},
		{"a listener's cluster", minimal + "[[listen]]\naddress = \":1\"\ncluster = \"x\"\n", `f.toml:9: listen 1: there is no cluster "x"`},
		{"a rule", minimal + "[[hba]]\ntype = \"host\"\ndatabase = \"all\"\nuser = \"all\"\naddress = \"all\"\nmethod = \"md6\"\n",
			`f.toml:12: hba 1: method "md6": want scram-sha-256, trust or reject`},
		{"a node", minimal + "  [[cluster.node]]\n  id = 2\n  host = \"h\"\n  weight = -1\n", `f.toml:10: cluster "cluster01": node 2: weight is -1, must be 0 to 1000`},
		{"a probe", "[ha]\nprobe_timeout = \"1ms\"\n" + minimal, `f.toml:2: ha: probe_timeout is 1ms, must be at least 10ms`},
		{"no cluster", "[proxy]\n", `f.toml: there is no cluster: add a section [[cluster]] with a name, and below it one [[cluster.node]] per server`},
		{"a cluster below ha", "[ha]\ncluster = []\n" + minimal, `f.toml:2: unknown key "cluster" in [ha]; it is a section of its own: [cluster]`},
		{"a user for the catalogue", "[catalog]\nauth_user = \"x\"\n" + minimal, `f.toml:2: unknown key "auth_user" in [catalog]; it belongs in [cluster]`},
		{"a file that is not there", minimal + "[proxy]\npassword_file = \"/none\"\n", `f.toml:8: password_file: open /none: no such file or directory`},
		{"two tokens", minimal + "[admin]\ntoken = \"12345678\"\ntoken_file = \"/dev/null\"\n", `f.toml:9: token and token_file are both set; keep one of them`},
		{"a table for a value", minimal + "[admin.listen]\nx = 1\n", `f.toml:7: listen: map[x:1] is not a text in quotes`},
		{"a value for a table", "cluster = 1\n", `f.toml:1: cluster is a list of tables: write [[cluster]]`},
		{"a value for a section", "proxy = 1\n" + minimal, `f.toml:1: proxy is a table: write [proxy] and its keys below`},
		{"no TOML", "[proxy\n", `f.toml:2: expected '.' or ']' to end table name, but got '\n' instead`},
		{"a key at the top", "token = \"x\"\n" + minimal, `f.toml:1: unknown section "token"; a key of this name belongs in [admin]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := problemsOf(t, c.text); len(got) != 1 || got[0] != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestAFileThatIsNotThereIsAProblemOfItsOwn(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.toml"), nil)
	if err == nil || !strings.HasSuffix(err.Error(), "none.toml: cannot be read: no such file or directory") {
		t.Errorf("got %v", err)
	}
}

func TestDurationsAndSizesAreReadWithTheirUnits(t *testing.T) {
	c, err := Parse("f.toml", `
[proxy]
wait_timeout = "1m30s"
hold_writes = 0
max_turn_bytes = "1 MiB"
[[cluster]]
name = "a"
max_lag_bytes = 4096
  [[cluster.node]]
  id = 7
  host = "h"
  weight = 0
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Proxy.WaitTimeout != 90*time.Second || c.Proxy.HoldWrites != 0 || c.Proxy.MaxTurnBytes != 1<<20 {
		t.Errorf("proxy: %+v", c.Proxy)
	}
	n := c.HA.Clusters[0].Nodes[0]
	if c.HA.Clusters[0].MaxLagBytes != 4096 || n.Weight != 0 || n.Port != 5432 || c.HA.Clusters[0].AuthUser != "postgres" {
		t.Errorf("cluster: %+v", c.HA.Clusters[0])
	}
}

func TestTheEnvironmentOverridesTheFile(t *testing.T) {
	c, err := Parse("f.toml", minimal+"[admin]\ntoken = \"from-the-file\"\n", []string{
		"CSTPROXY_ADMIN_TOKEN=from-the-environment", "CSTLB_TOKEN=weaker-than-that", "CSTPROXY_PROXY_POOL_SIZE=7",
		"CSTPROXY_PROXY_WAIT_TIMEOUT=2s", "CSTPROXY_PROXY_MAX_TURN_BYTES=8kB", "CSTPROXY_CONFIG=elsewhere", "HOME=/root",
		"CSTPROXY_SERVICE_HOST=10.0.0.1", "CSTPROXY_ADMIN_SERVICE_PORT=8082", "CSTPROXY_PROXY_PORT=tcp://10.0.0.1:9999",
		"CSTPROXY_PROXY_PORT_9999_TCP_ADDR=10.0.0.1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Admin.Token != "from-the-environment" || c.Proxy.PoolSize != 7 || c.Proxy.WaitTimeout != 2*time.Second || c.Proxy.MaxTurnBytes != 8<<10 {
		t.Errorf("got %+v %+v", c.Admin, c.Proxy)
	}
}

func TestCstlbsVariableSetsTheToken(t *testing.T) {
	c, err := Parse("f.toml", minimal, []string{"CSTLB_TOKEN=540cd628-d74e"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Admin.Token != "540cd628-d74e" {
		t.Errorf("token %q", c.Admin.Token)
	}
}

func TestSecretsComeFromFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"token": "  secret-of-the-file \nsecond line\n", "empty": "\nx\n", "f.toml": minimal + "[admin]\ntoken_file = \"token\"\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Load(filepath.Join(dir, "f.toml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Admin.Token != "secret-of-the-file" {
		t.Errorf("token %q from token_file", c.Admin.Token)
	}
	c, err = Parse("f.toml", minimal+"[admin]\ntoken = \"of-the-file\"\n", []string{"CSTPROXY_ADMIN_TOKEN_FILE=" + filepath.Join(dir, "token")})
	if err != nil {
		t.Fatal(err)
	}
	if c.Admin.Token != "secret-of-the-file" {
		t.Errorf("token %q from the variable, want the stronger source to win", c.Admin.Token)
	}
	got := problemsOf(t, minimal, "CSTPROXY_ADMIN_TOKEN_FILE="+filepath.Join(dir, "empty"))
	if len(got) != 1 || !strings.Contains(got[0], "the first line of") {
		t.Errorf("an empty secret gave %q", got)
	}
}

func TestAMistypedVariableIsAProblem(t *testing.T) {
	got := problemsOf(t, minimal, "CSTPROXY_ADMIN_TOKN=x", "CSTPROXY_PROXY_POOL_SIZE=many", "CSTPROXY_HA_DEAD_AFTER=0")
	want := []string{
		"environment: unknown variable CSTPROXY_ADMIN_TOKN; the nearest known one is CSTPROXY_ADMIN_TOKEN",
		`environment: CSTPROXY_PROXY_POOL_SIZE: "many" is not a whole number`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	got = problemsOf(t, minimal, "CSTPROXY_HA_DEAD_AFTER=0")
	if want := []string{"environment: CSTPROXY_HA_DEAD_AFTER: ha: dead_after is 0, must be at least 1"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFileNamesAreRelativeToTheFile(t *testing.T) {
	c, err := Parse("/etc/cstproxy/cstproxy.toml", minimal+"[ha]\nstate_dir = \"state\"\n[proxy]\npassword_file = \"/dev/null\"\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.HA.StateDir != "/etc/cstproxy/state" || c.Proxy.PasswordFile != "/dev/null" {
		t.Errorf("state_dir %q, password_file %q", c.HA.StateDir, c.Proxy.PasswordFile)
	}
}

func TestSettingsTellTheirOriginAndHideSecrets(t *testing.T) {
	c, err := Parse("f.toml", minimal+"[admin]\ntoken = \"very-secret\"\n", []string{"CSTPROXY_PROXY_POOL_SIZE=7"})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]Setting{}
	for _, s := range c.Settings() {
		if strings.Contains(s.Value, "very-secret") {
			t.Errorf("%s shows a secret", s.Key)
		}
		found[s.Key] = s
	}
	for key, want := range map[string]struct {
		value, where string
		kind         OriginKind
		restart      bool
	}{
		"admin.token":                      {masked, "f.toml:8", FromFile, false},
		"admin.listen":                     {`"127.0.0.1:8082"`, "", FromDefault, true},
		"proxy.pool_size":                  {"7", "CSTPROXY_PROXY_POOL_SIZE", FromEnvironment, false},
		"proxy.server_lifetime":            {`"1h"`, "", FromDefault, false},
		"cluster[cluster01].node[1].host":  {`"127.0.0.1"`, "f.toml:6", FromFile, false},
		"cluster[cluster01].max_lag_bytes": {`"256MB"`, "", FromDefault, false},
		"hba[2].method":                    {`"scram-sha-256"`, "", FromDefault, false},
	} {
		s, ok := found[key]
		if !ok || s.Value != want.value || s.Origin.Kind != want.kind || s.Origin.Where != want.where || s.Restart != want.restart {
			t.Errorf("%s: %+v, want %+v", key, s, want)
		}
	}
}

func TestEveryKeyThatNeedsARestartExists(t *testing.T) {
	sections := sectionKeys(Default().mounts())
	for _, key := range restartKeys() {
		section, name := key[:strings.LastIndexByte(key, '.')], key[strings.LastIndexByte(key, '.')+1:]
		if name != "*" && indexOf(sections[section], name) < 0 || len(sections[section]) == 0 {
			t.Errorf("there is no key %s", key)
		}
	}
}

func TestKeepUntilRestartUndoesEveryChangeThatNeedsOne(t *testing.T) {
	old, err := Parse("f.toml", minimal, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := minimal + "[admin]\nlisten = \":1\"\n[ha]\nstate_dir = \"/x\"\n[proxy]\nlisten = \":2\"\npool_size = 3\n[[listen]]\naddress = \":3\"\n" +
		"[fleet]\nlease = \"2s\"\n[cluster.operation]\nenabled = true\n"
	now, err := Parse("f.toml", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range restartKeys() {
		if !slices.ContainsFunc(now.Diff(old), func(ch Change) bool {
			return ch.Restart && strings.HasPrefix(sectionName(ch.Key), strings.TrimSuffix(key, "*"))
		}) {
			t.Errorf("this test changes no %s", key)
		}
	}
	now.KeepUntilRestart(old)
	if got := now.Diff(old); len(got) != 1 || got[0].Key != "proxy.pool_size" {
		t.Errorf("left: %v", got)
	}
}

func TestDiffNamesWhatChangedByName(t *testing.T) {
	two := minimal + "  [[cluster.node]]\n  id = 2\n  host = \"b\"\n"
	swapped := "[[cluster]]\nname = \"cluster01\"\n[[cluster.node]]\nid = 2\nhost = \"b\"\n[[cluster.node]]\nid = 1\nhost = \"127.0.0.1\"\n"
	for _, c := range []struct {
		name, old, text string
		want            []string
	}{
		{"nothing", two, two, nil},
		{"order is no change", two, swapped, nil},
		{"a value", two, two + "weight = 3\n", []string{"cluster[cluster01].node[2].weight: 1 -> 3"}},
		{"a restart", two, two + "[proxy]\nlisten = \":1\"\n", []string{`proxy.listen: "0.0.0.0:9999" -> ":1" (needs a restart)`}},
		{"a secret", two + "[admin]\ntoken = \"12345678\"\n", two + "[admin]\ntoken = \"87654321\"\n", []string{`admin.token: ` + masked + ` -> ` + masked}},
		{"a listener", two, two + "[[listen]]\naddress = \":2\"\n", []string{
			`listen[:2].address: added ":2" (needs a restart)`, `listen[:2].cluster: added "" (needs a restart)`,
			`listen[:2].mode: added "auto" (needs a restart)`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, err := Parse("f.toml", c.old, nil)
			if err != nil {
				t.Fatal(err)
			}
			now, err := Parse("f.toml", c.text, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, ch := range now.Diff(old) {
				got = append(got, ch.String())
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestLoadAdminNeedsOnlyItsOwnSectionToBeRight(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.toml")
	if err := os.WriteFile(path, []byte("[proxy]\nunknown = 1\n[admin]\nlisten = \"127.0.0.1:1\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadAdmin(path, []string{"CSTPROXY_ADMIN_TOKEN=12345678"})
	if err != nil || c.Listen != "127.0.0.1:1" || c.Token != "12345678" {
		t.Errorf("got %+v, %v", c, err)
	}
}
