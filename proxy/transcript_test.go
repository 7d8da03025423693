package proxy

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/backend"
)

var update = flag.Bool("update", false, "write testdata/*.txt as the machine behaves now")

// A transcript is a conversation of clients (C, D, …) and servers (S1 is the first connection to
// node 1, S1b the second). What the test does stands in lines of its own:
//
//	C> messages            the client sends          S2< messages    the server sends
//	client C "k" "v"       logs in, quietly when it has no parameters
//	raw C [auto|standby|primary]                     connects and says nothing
//	hangup C, reset S2     the peer shuts down its sending side (a server: closes), or breaks the connection
//	wait 5s                time passes
//	view 2 3 1             epoch 2, primary 3 (0: none), standby 1
//	lease                  from here on an epoch has a lease, held for an hour; "view" ends the old one
//	renew 1s, suspend, end what happens to the lease; freeze [why] what the View says
//	open                   asks for the number of open writes
//	down 2 / down 2 FATAL 53300 "text" / up 2        how dialling ends from now on
//	stall 2, let 2                                   dials to node 2 do not end; those so far do
//	queue C 300000, drain C                          what waits in the write queue
//	cancel C               somebody cancels with C's key
//	taken S1               the node has taken the cancel request
//	config k=v …, tls, secured C
//
// and what the machine does about it in lines with the other arrow: "S2> messages", "C< messages",
// "strike S1" (a cancel request leaves), "(end)" (the proxy shuts down its side), "C paused", and "pools …" where a line "pools" asks for it.
// The test compares the whole file, with the bytes in one piece, byte by byte, and cut at random.
// With -update it writes what it saw.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := string(text)
			for _, part := range splitScenes(want) {
				checkScene(t, file, part)
			}
			if *update {
				out := ""
				for _, part := range splitScenes(want) {
					out += playScene(t, part, func(n int) int { return n })
				}
				if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// splitScenes cuts a file at lines that begin with "==": each scene has a world of its own.
func splitScenes(text string) []string {
	var scenes []string
	start := 0
	lines := strings.SplitAfter(text, "\n")
	at := 0
	for _, line := range lines {
		if strings.HasPrefix(line, "==") && at > start {
			scenes = append(scenes, text[start:at])
			start = at
		}
		at += len(line)
	}
	return append(scenes, text[start:])
}

func checkScene(t *testing.T, file, scene string) {
	title, _, _ := strings.Cut(scene, "\n")
	t.Run(strings.Trim(title, "= "), func(t *testing.T) {
		ways := []struct {
			name string
			cut  func(int) int
		}{{"in one piece", func(n int) int { return n }}, {"byte by byte", byteByByte}, {"cut at random", randomCuts(1)},
			{"cut at random", randomCuts(2)}, {"cut at random", randomCuts(3)}}
		var first string
		for i, way := range ways {
			if i > 0 && strings.Contains(title, "(one segment)") {
				break
			}
			if i == 1 && strings.Contains(scene, "00000") {
				continue // hundreds of kilobytes, one by one
			}
			got := playScene(t, scene, way.cut)
			if i == 0 {
				first = got
				if strings.Contains(got, "\n!!") {
					t.Errorf("%s: a line does not work:\n%s", file, got)
				}
				if got != scene && !*update {
					t.Errorf("%s differs:\n%s", file, firstDifference(scene, got))
					return
				}
				continue
			}
			if got != first {
				t.Errorf("%s, %s, differs from one piece:\n%s", file, way.name, firstDifference(first, got))
			}
		}
	})
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range w {
		if i >= len(g) || w[i] != g[i] {
			end := min(len(g), i+4)
			return fmt.Sprintf("line %d\nwant %s\ngot  %s", i+1, w[i], strings.Join(g[min(i, end):end], "\n     "))
		}
	}
	return "got more: " + strings.Join(g[len(w):], "\n")
}

// scene is a transcript while it is played.
type scene struct {
	t       *testing.T
	w       *world
	config  []func(*Config)
	cut     func(int) int
	clients map[string]*fakeClient
	paused  map[string]bool
	closed  map[*fakeLink]bool
	shut    map[*fakeLink]bool
	struck  int
	out     strings.Builder
}

// playScene does what the transcript says and returns it with what happened. Where it matters what
// is read at once, no piece is larger than the machine waits for.
func playScene(t *testing.T, text string, way func(int) int) string {
	most := 64 << 10
	if strings.Contains(text, "max_turn_bytes") {
		most = 4000
	}
	cut := func(n int) int { return min(way(n), most) }
	s := &scene{t: t, cut: cut, clients: map[string]*fakeClient{}, paused: map[string]bool{}, closed: map[*fakeLink]bool{}, shut: map[*fakeLink]bool{}}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for _, line := range lines {
		if isObservation(line) {
			continue
		}
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "==") || line == "" {
			s.out.WriteString(line + "\n")
			continue
		}
		if err := s.do(line); err != nil {
			s.out.WriteString("!! " + err.Error() + "\n")
		}
	}
	return s.out.String()
}

// isObservation says whether the line is the machine's part.
func isObservation(line string) bool {
	head, rest, _ := strings.Cut(line, " ")
	switch {
	case head == "!!", head == "strike", head == "pools" && rest != "", head == "open" && rest != "", rest == "paused", rest == "reads":
		return true
	case len(head) < 2:
		return false
	}
	server := head[0] == 'S' && head[1] >= '1' && head[1] <= '9'
	return server && strings.HasSuffix(head, ">") || !server && strings.HasSuffix(head, "<")
}

func (s *scene) world() *world {
	if s.w == nil {
		s.w = newWorld(s.t, func(c *Config) {
			for _, change := range s.config {
				change(c)
			}
		})
		s.w.cut = s.cut
	}
	return s.w
}

func (s *scene) do(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	s.out.WriteString(line + "\n")
	var err error
	switch {
	case strings.HasSuffix(verb, ">"):
		var b []byte
		if b, err = parseMessages(rest, false); err == nil {
			s.client(verb[:len(verb)-1]).send(b)
		}
	case strings.HasSuffix(verb, "<"):
		var b []byte
		if b, err = parseMessages(rest, true); err != nil {
			break
		}
		var srv *fakeServer
		if srv, err = s.server(verb[:len(verb)-1]); err == nil {
			srv.link.in = append(srv.link.in, b...)
			s.w.settle()
		}
	default:
		err = s.command(verb, strings.Fields(rest), rest)
	}
	if err == nil {
		s.observe()
	}
	return err
}

func (s *scene) client(name string) *fakeClient {
	c := s.clients[name]
	if c == nil {
		c = s.world().login()
		s.clients[name] = c
	}
	return c
}

func (s *scene) server(name string) (*fakeServer, error) {
	for _, srv := range s.world().servers {
		if srv.name() == name {
			return srv, nil
		}
	}
	return nil, fmt.Errorf("no server %s", name)
}

func (s *scene) link(name string) (*fakeLink, error) {
	if c := s.clients[name]; c != nil {
		return c.link, nil
	}
	srv, err := s.server(name)
	if err != nil {
		return nil, err
	}
	return srv.link, nil
}

func (s *scene) command(verb string, args []string, rest string) error {
	switch verb {
	case "config":
		return s.configure(args)
	case "pools":
		s.out.WriteString("pools " + s.world().state() + "\n")
		return nil
	case "tls":
		s.world().p.tls = &tls.Config{}
		return nil
	case "client":
		c := s.world().accept(ListenAuto)
		s.clients[args[0]] = c
		f := &fields{words: mustWords(rest)[1:]}
		c.send(startupPacket(3<<16, f.texts()...))
		if len(args) == 1 {
			c.received()
		}
		return f.err
	case "raw":
		mode := ListenAuto
		if len(args) > 1 {
			mode = ListenerMode(args[1])
		}
		s.clients[args[0]] = s.world().accept(mode)
		return nil
	case "wait":
		d, err := time.ParseDuration(args[0])
		s.world().advance(d)
		return err
	case "lease", "renew", "suspend", "end":
		return s.lease(verb, args)
	case "freeze":
		s.world().freeze(rest)
		s.w.settle()
		return nil
	case "open":
		fmt.Fprintf(&s.out, "open = %d, held %d and %d\n", s.world().p.OpenWrites("main"), s.w.p.stats.HeldTurns.Load(), s.w.p.stats.HeldAnswers.Load())
		return nil
	case "view":
		return s.view(args)
	case "down", "up", "stall", "let":
		return s.dialling(verb, mustWords(rest))
	case "cancel":
		c := s.clients[args[0]]
		canceller := s.w.accept(ListenAuto)
		key := c.session.key
		f := &fields{words: []string{strconv.Itoa(int(key.pid)), strconv.Quote(key.secret)}}
		canceller.send(f.frontend(nil, "CancelRequest"))
		return f.err
	case "drainage":
		s.w.p.draining = true
		for other := range s.w.p.sessions {
			other.leaveIfDraining()
		}
		s.w.settle()
		return nil
	}
	l, err := s.link(args[0])
	if err != nil {
		return err
	}
	return s.onLink(verb, args, l)
}

func (s *scene) onLink(verb string, args []string, l *fakeLink) error {
	switch verb {
	case "hangup":
		l.eof = true
	case "reset":
		l.gone = syscall.ECONNRESET
	case "queue":
		n, err := strconv.Atoi(args[1])
		l.extra = n
		return err
	case "drain":
		l.drain()
	case "secured":
		l.secure(tls.ConnectionState{}, nil)
	case "taken":
		for i, k := range s.w.strikes {
			if k.srv.link == l {
				s.w.strikes = append(s.w.strikes[:i], s.w.strikes[i+1:]...)
				s.struck--
				k.done(nil)
				break
			}
		}
	default:
		return errors.New("no such command")
	}
	s.w.settle()
	return nil
}

func mustWords(line string) []string {
	words, err := splitWords(line)
	if err != nil {
		return nil
	}
	return words
}

func (s *scene) configure(args []string) error {
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		number, _ := strconv.Atoi(value)
		lasts, _ := time.ParseDuration(value)
		set, ok := map[string]func(*Config){
			"max_prepared":             func(c *Config) { c.MaxPrepared = number },
			"pool_size":                func(c *Config) { c.PoolSize = number },
			"pool_mode":                func(c *Config) { c.PoolMode = PoolMode(value) },
			"max_waiting":              func(c *Config) { c.MaxWaiting = number },
			"max_turn_bytes":           func(c *Config) { c.MaxTurnBytes = number },
			"query_timeout":            func(c *Config) { c.QueryTimeout = lasts },
			"client_idle_timeout":      func(c *Config) { c.ClientIdleTimeout = lasts },
			"idle_transaction_timeout": func(c *Config) { c.IdleTransactionTimeout = lasts },
			"hold_writes":              func(c *Config) { c.HoldWrites = lasts },
			"hold_bytes":               func(c *Config) { c.HoldBytes = number },
			"max_clients":              func(c *Config) { c.MaxClients = number },
		}[name]
		if !ok {
			return fmt.Errorf("no setting %q", name)
		}
		s.config = append(s.config, set)
	}
	return nil
}

func (s *scene) view(args []string) error {
	var ids []topology.NodeID
	for _, a := range args {
		n, err := strconv.Atoi(a)
		if err != nil {
			return err
		}
		ids = append(ids, topology.NodeID(n))
	}
	s.world().publish(topology.Epoch(ids[0]), ids[1], ids[2:]...)
	s.w.settle()
	return nil
}

func (s *scene) lease(verb string, args []string) error {
	w := s.world()
	switch verb {
	case "lease":
		v := *w.board.View()
		w.leased, w.lease = true, &topology.Lease{}
		v.Lease = w.lease
		w.lease.Renew(w.now.Add(time.Hour).UnixNano())
		w.board.Publish(&v)
		w.c.viewChanged(&v)
	case "renew":
		d, err := time.ParseDuration(args[0])
		w.lease.Renew(w.now.Add(d).UnixNano())
		return err
	case "suspend":
		w.lease.Suspend()
	case "end":
		w.lease.End()
	}
	return nil
}

func (s *scene) dialling(verb string, args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	id := topology.NodeID(n)
	w := s.world()
	switch {
	case verb == "stall":
		w.stalled[id] = nil
		return nil
	case verb == "let":
		w.posts = append(w.posts, w.stalled[id]...)
		w.stalled[id] = nil
		w.settle()
		return nil
	case verb == "up":
		delete(w.down, id)
	case len(args) == 1:
		w.down[id] = io.ErrUnexpectedEOF
	default:
		text, err := strconv.Unquote(args[3])
		if err != nil {
			return err
		}
		w.down[id] = &backend.ServerError{Severity: args[1], Code: args[2], Message: text}
	}
	w.posts = append(w.posts, w.stalled[id]...)
	delete(w.stalled, id)
	w.settle()
	return nil
}

// observe writes down what happened since the last call.
func (s *scene) observe() {
	if s.w == nil {
		return
	}
	for _, srv := range s.w.servers {
		s.observeLink(srv.name()+">", srv.link, renderMessages(srv.link.out, false))
	}
	for _, k := range s.w.strikes[s.struck:] {
		s.out.WriteString("strike " + k.srv.name() + "\n")
	}
	s.struck = len(s.w.strikes)
	names := make([]string, 0, len(s.clients))
	for name := range s.clients {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		l := s.clients[name].link
		b := l.out
		var list []string
		for len(b) > 0 && (b[0] == 'N' || b[0] == 'S') && (len(b) == 1 || b[1] != 0) {
			list, b = append(list, "Raw "+quote(string(b[:1]))), b[1:] // to SSLRequest and GSSENCRequest
		}
		s.observeLink(name+"<", l, append(list, renderMessages(b, true)...))
	}
}

func (s *scene) observeLink(who string, l *fakeLink, list []string) {
	l.out = nil
	if l.shut && !s.shut[l] {
		s.shut[l] = true
		list = append(list, "(end)")
	}
	if l.closed && !s.closed[l] {
		s.closed[l] = true
		list = append(list, "(closed)")
	}
	if len(list) > 0 {
		s.out.WriteString(who + " " + strings.Join(list, " | ") + "\n")
	}
	name := who[:len(who)-1]
	if l.paused != s.paused[name] && !l.dead {
		s.paused[name] = l.paused
		s.out.WriteString(name + map[bool]string{true: " paused", false: " reads"}[l.paused] + "\n")
	}
}
