package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/conf"
)

// clupFiles are what `ctl init --from` reads and writes.
type clupFiles struct {
	clusters string // init.json of CLup's `clupadm init`
	settings string // clup.conf; empty: there is none
	write    string // where the sections go; empty: standard output
}

// maxClupFile bounds what is read, in bytes; a thousand servers take a third of it.
const maxClupFile = 1 << 20

// clupCluster is one cluster of init.json, as CLup's manual describes it (version 1). What CLup keeps there
// of its own state is observed here.
type clupCluster struct {
	name     string
	WriteVIP string     `json:"write_vip"`
	ReadVIP  string     `json:"read_vip"`
	CSTLB    []string   `json:"cstlb_list"`
	Nodes    []clupNode `json:"db_list"`
	other    []string   // keys that are neither taken over nor state
}

type clupVIP struct{ key, address string }

// vips are those that are set.
func (c *clupCluster) vips() []clupVIP {
	return slices.DeleteFunc([]clupVIP{{"write_vip", c.WriteVIP}, {"read_vip", c.ReadVIP}}, func(v clupVIP) bool { return v.address == "" })
}

type clupNode struct {
	ID         int    `json:"id"`
	State      *int   `json:"state"` // 1: normal
	OSUser     string `json:"os_user"`
	PGData     string `json:"pgdata"`
	AppName    string `json:"repl_app_name"`
	Host       string `json:"host"`
	SwitchHost string `json:"switch_host"`
	Port       int    `json:"port"`
	other      []string
}

// importCLup prints or writes the sections of CLup's clusters, once they are what `cstproxy check` takes,
// and says on standard error what they leave out.
func importCLup(cmd *cobra.Command, f clupFiles) error {
	text, err := readClupFile(f.clusters)
	if err != nil {
		return err
	}
	clusters, err := parseClup(text)
	if err != nil {
		return usagef("%s: %v", f.clusters, err)
	}
	settings := map[string]string{}
	if f.settings != "" {
		if text, err = readClupFile(f.settings); err != nil {
			return err
		}
		settings = clupSettings(string(text))
	}
	made := clupSections(clusters, settings)
	cfg, err := conf.Parse("cstproxy.toml", made, nil)
	if err == nil {
		err = checkContents(cfg)
	}
	if err != nil {
		return fmt.Errorf("what %s says makes no configuration: %w", f.clusters, err)
	}
	if f.write == "" {
		fmt.Fprint(cmd.OutOrStdout(), made)
	} else if err := writeNew(f.write, made); err != nil {
		return err
	}
	for _, line := range clupLeftOut(clusters, settings) {
		fmt.Fprintln(cmd.ErrOrStderr(), "not taken over:", line)
	}
	if f.write != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: written; see the lines to fill in, then: cstproxy check -f %s\n", f.write, f.write)
	}
	return nil
}

func readClupFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, usagef("%v", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxClupFile+1))
	switch {
	case err != nil:
		return nil, usagef("%v", err)
	case len(text) > maxClupFile:
		return nil, usagef("%s: larger than %d bytes; is it CLup's?", path, maxClupFile)
	}
	return text, nil
}

// writeNew never replaces a file, and leaves no half of one.
func writeNew(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already and stays as it is: %w", path, admin.ErrRefused)
	}
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// parseClup reads init.json: an object of clusters by name, whose order is kept.
func parseClup(text []byte) ([]clupCluster, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("want a JSON object with a cluster for each name")
	}
	var list []clupCluster
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, fmt.Errorf("cluster %v: %w", key, err)
		}
		c, err := parseClupCluster(raw)
		if err != nil {
			return nil, fmt.Errorf("cluster %v: %w", key, err)
		}
		c.name = fmt.Sprint(key)
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("there is no cluster in it")
	}
	return list, nil
}

func parseClupCluster(raw json.RawMessage) (clupCluster, error) {
	var c clupCluster
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, err
	}
	var all struct {
		Nodes []map[string]json.RawMessage `json:"db_list"`
	}
	var keys map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(raw, &keys), json.Unmarshal(raw, &all)); err != nil {
		return c, err
	}
	if len(c.Nodes) == 0 {
		return c, errors.New(`db_list is missing or empty; is this CLup's init.json?`)
	}
	c.other = without(keys, "write_vip", "read_vip", "cstlb_list", "db_list", "state", "lock_time", "read_vip_host")
	for i := range c.Nodes {
		c.Nodes[i].other = without(all.Nodes[i], "id", "state", "os_user", "pgdata", "is_primary", "repl_app_name", "host", "switch_host", "port")
	}
	return c, nil
}

// without are the keys that are not among the known ones, in order.
func without(keys map[string]json.RawMessage, known ...string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(keys)), func(key string) bool { return slices.Contains(known, key) })
}

// clupSettings reads clup.conf: lines of key = value, and comments.
func clupSettings(text string) map[string]string {
	settings := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if found && !strings.HasPrefix(key, "#") {
			settings[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return settings
}

// clupSections are the sections [[cluster]] of the clusters. Passwords and tokens are left out: this text
// is shown, and may be kept where others read it.
func clupSections(clusters []clupCluster, settings map[string]string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	user := textOr(settings["ha_db_user"], "postgres")
	line("# Made by cstproxy ctl init --from. Every setting: cstproxy config sample.")
	for i := range clusters {
		c := &clusters[i]
		line("\n[[cluster]]\nname = %s", quoted(c.name))
		line("auth_user = %s", quoted(user))
		line("# To fill in: its password, in a file of the account that runs cstproxy (mode 0600), or in that account's .pgpass.")
		line("# password_file = %s", quoted("/etc/cstproxy/"+user+".pass"))
		for _, v := range c.vips() {
			if strings.Contains(v.address, "/") {
				line("%s = %s", v.key, quoted(v.address))
			} else {
				line("# To fill in: CLup knows the address alone; the length of its subnet belongs to it.\n# %s = %s", v.key, quoted(v.address+"/24"))
			}
		}
		line("\n  [cluster.operation]")
		line("  # To fill in: true when CLup's manager is stopped for good: two programs must never fail over the same cluster.\n  enabled = false")
		line("  # To fill in: the way to the hosts.\n  # ssh_key_file = \"/etc/cstproxy/ssh_key\"\n  # ssh_known_hosts_file = \"/etc/cstproxy/known_hosts\"")
		if name := settings["db_repl_user"]; name != "" {
			line("  replication_user = %s", quoted(name))
			line("  # To fill in: its password.\n  # replication_password_file = %s", quoted("/etc/cstproxy/"+name+".pass"))
		}
		if len(c.CSTLB) > 0 {
			line("  # Instances of cstlb that stay are told of the rotation; leave the line out when the members take their place.")
			line("  cstlb_list = %s", quoted(c.CSTLB))
			line("  # To fill in: cstlb_token = \"\"")
		}
		for j := range c.Nodes {
			c.Nodes[j].section(line)
		}
	}
	return b.String()
}

func (n *clupNode) section(line func(string, ...any)) {
	line("\n  [[cluster.node]]\n  id = %d\n  host = %s", n.ID, quoted(n.Host))
	if n.Port != 0 {
		line("  port = %d", n.Port)
	}
	for _, s := range []struct{ key, text string }{{"os_user", n.OSUser}, {"pgdata", n.PGData}, {"repl_app_name", n.AppName}} {
		if s.text != "" {
			line("  %s = %s", s.key, quoted(s.text))
		}
	}
}

// quoted writes a text or a list of texts as TOML has them; JSON's escapes are TOML's.
func quoted(value any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(value) // texts always marshal
	return strings.ReplaceAll(strings.TrimSpace(b.String()), "\x7f", `\u007f`)
}

// clupLeftOut says what has no counterpart, or another one.
func clupLeftOut(clusters []clupCluster, settings map[string]string) []string {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	add("is_primary, state, lock_time, read_vip_host: they are observed")
	for i := range clusters {
		c := &clusters[i]
		for _, v := range c.vips() {
			if !strings.Contains(v.address, "/") {
				add("%s: %s %s: add the length of its subnet where it is commented out", c.name, v.key, v.address)
			}
		}
		for _, key := range c.other {
			add("%s: %s: there is no such setting here", c.name, key)
		}
		for j := range c.Nodes {
			n := &c.Nodes[j]
			for _, key := range n.other {
				add("%s: db %d: %s: there is no such setting here", c.name, n.ID, key)
			}
			if n.SwitchHost != "" && n.SwitchHost != n.Host {
				add("%s: db %d: switch_host %s: make that server a node of its own, or put it in host's place", c.name, n.ID, n.SwitchHost)
			}
			if n.State != nil && *n.State != 1 {
				add("%s: db %d: its state %d (1 is normal): it must follow the primary before it takes reads", c.name, n.ID, *n.State)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		if where, known := clupElsewhere(key); !known {
			add("clup.conf: %s: there is no such setting here", key)
		} else if where != "" {
			add("clup.conf: %s: %s", key, where)
		}
	}
	return list
}

// clupElsewhere says what becomes of a key of clup.conf; nothing for what is taken over.
func clupElsewhere(key string) (where string, known bool) {
	switch key {
	case "ha_db_user", "db_repl_user":
		return "", true
	case "ha_db_pass":
		return "goes into password_file, which the section names", true
	case "db_repl_pass":
		return "goes into replication_password_file, which the section names", true
	case "probe_user", "probe_password":
		return "auth_user probes, too", true
	case "probe_db_name":
		return "the write heartbeat is in the database cs_sys_ha, which ctl init makes", true
	case "probe_interval":
		return "servers are probed twice a second; see probe_interval in [ha]", true
	case "http_token":
		return "goes into token_file in [admin]", true
	case "cstlb_token":
		return "goes into cstlb_token in [cluster.operation]", true
	case "network", "ha_rpc_pass", "lock_ttl":
		return "not needed: members know each other by [fleet] and its key", true
	}
	return "", false
}
