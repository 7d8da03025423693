package pgnode

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

const ample = 30 * time.Second

func upstream(n, self *pglocal.Node) Upstream {
	return Upstream{Host: n.Host, Port: n.Port, AppName: self.Name}
}

func facts(t *testing.T, s *Server) Facts {
	t.Helper()
	f, err := connect(t, s).Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAStandbyIsRecruitedAndReleased(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Standbys: 1, Settings: map[string]string{"log_statement": "all"}})
	a, b := pg.Nodes()[0], pg.Nodes()[1]
	s := server(t, b, "postgres")
	if f := facts(t, s); f.Marker != (Marker{}) || !f.Streaming || f.Upstream != a.Address() || !f.Complete || f.DataDir != b.Dir || f.Conninfo.Get("password") != pglocal.DefaultPassword {
		t.Fatalf("before: %+v", f)
	}
	for range 2 {
		f, err := s.Recruit(within(t, ample), 7)
		if err != nil || f.Marker != (Marker{Epoch: 7}) || f.Receiver || f.Conninfo != nil {
			t.Fatalf("recruit: %+v, %v", f, err)
		}
	}
	psql(t, a, "CREATE TABLE late (x int)")
	if n, err := a.Psql(t.Context(), "SELECT count(*) FROM pg_stat_replication"); err != nil || n != "0" {
		t.Errorf("%s senders, %v", n, err)
	}
	if got, err := b.Psql(t.Context(), "SELECT to_regclass('late')"); err != nil || got != "" {
		t.Errorf("a recruited standby received %q, %v", got, err)
	}

	up := upstream(a, b)
	for range 2 {
		f, err := s.Follow(within(t, ample), 7, up)
		if err != nil || f.Marker != (Marker{7, true}) || !f.Streaming || f.Upstream != a.Address() {
			t.Fatalf("release: %+v, %v", f, err)
		}
	}
	if err := pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(b.LogFile)
	if err != nil || !strings.Contains(string(log), "pg_is_in_recovery") {
		t.Fatalf("the log should hold statements: %v", err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, pglocal.DefaultPassword+"'") && !strings.Contains(line, `parameter "primary_conninfo" changed`) {
			t.Errorf("the password is in the server's log: %s", line)
		}
	}
}

func TestWhoComesTooLateChangesNothing(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Standbys: 1})
	a, b := pg.Nodes()[0], pg.Nodes()[1]
	s := server(t, b, "postgres")
	if _, err := s.Recruit(within(t, ample), 8); err != nil {
		t.Fatal(err)
	}
	var late *Late
	if _, err := s.Follow(within(t, ample), 7, upstream(a, b)); !errors.As(err, &late) || late.Seen != (Marker{Epoch: 8}) {
		t.Errorf("a release of epoch 7: %v", err)
	}
	if _, err := s.Recruit(within(t, ample), 7); !errors.As(err, &late) {
		t.Errorf("a recruit of epoch 7: %v", err)
	}
	if f := facts(t, s); f.Marker != (Marker{Epoch: 8}) || f.Receiver {
		t.Errorf("after them: %+v", f)
	}
	if _, err := s.Follow(within(t, ample), 8, upstream(a, b)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recruit(within(t, ample), 8); !errors.As(err, &late) || late.Seen != (Marker{8, true}) {
		t.Errorf("a recruit of epoch 8 after its release: %v", err)
	}
	c := connect(t, s)
	if err := c.Promote(t.Context(), 8); !errors.As(err, &late) {
		t.Errorf("a promotion of epoch 8 after its release: %v", err)
	}
	if f := facts(t, s); !f.Streaming || !f.Standby {
		t.Errorf("at last: %+v", f)
	}
}

func TestTheRecruitedStandbyIsPromotedAndTheOtherFollows(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Standbys: 2})
	a, b, d := pg.Nodes()[0], pg.Nodes()[1], pg.Nodes()[2]
	sb, sd := server(t, b, "postgres"), server(t, d, "postgres")
	c := connect(t, sb)
	var late *Late
	if err := c.Promote(t.Context(), 2); !errors.As(err, &late) || late.Seen != (Marker{}) {
		t.Errorf("promote one that is not recruited: %v", err)
	}
	for _, s := range []*Server{sb, sd} {
		if _, err := s.Recruit(within(t, ample), 2); err != nil {
			t.Fatal(err)
		}
	}
	a.Kill()
	for range 2 {
		if err := c.Promote(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		o, err := c.AwaitPrimary(within(t, ample), 1)
		if err != nil || o.Role != topology.RolePrimary || o.Timeline != 2 {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	if _, err := c.AwaitPrimary(within(t, ample), 2); err == nil {
		t.Error("timeline 2 is not above 2")
	}
	if err := c.MakeSlot(t.Context(), "cstproxy_d"); err != nil {
		t.Fatal(err)
	}
	up := upstream(b, d)
	up.Slot = "cstproxy_d"
	f, err := sd.Follow(within(t, ample), 2, up)
	if err != nil || f.Upstream != b.Address() || f.Slot != "cstproxy_d" {
		t.Fatalf("%+v, %v", f, err)
	}
	ctx := within(t, ample)
	for slots := []Slot(nil); len(slots) != 1 || !slots[0].Active; {
		if slots, err = c.Slots(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Checkpoint(within(t, ample)); err != nil {
		t.Error(err)
	}
	b.Kill() // before d has made a restart point: its control file is still on timeline 1
	cd := connect(t, sd)
	for o := (Observation{Receiver: "streaming"}); o.Receiver != ""; {
		if o, err = cd.Probe(ctx); err != nil {
			t.Fatal(err)
		}
		if o.Timeline != 2 || !o.History.Known() {
			t.Fatalf("without the primary that it followed: %+v", o)
		}
	}
}

func TestSlotsAreKeptOnAStandbyAsWell(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Standbys: 1})
	a, b := pg.Nodes()[0], pg.Nodes()[1]
	psql(t, b, "SELECT pg_create_physical_replication_slot('somebodys', true)")
	c := connect(t, server(t, b, "postgres"))
	for range 2 {
		if err := c.KeepSlots(t.Context(), nil, map[string]topology.LSN{"cstproxy_x": 0, "cstproxy_y": 0}); err != nil {
			t.Fatal(err)
		}
	}
	before, err := c.Slots(t.Context())
	if err != nil || len(before) != 3 || before[0].Name != "cstproxy_x" || before[0].Restart == 0 {
		t.Fatalf("%+v, %v", before, err)
	}
	psql(t, a, "SELECT pg_switch_wal()")
	psql(t, a, "CREATE TABLE t (x int)")
	if err := pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := observe(t, c)
	psql(t, b, "SELECT pg_create_physical_replication_slot('cstproxy_new', true)") // after the listing
	if err := c.KeepSlots(t.Context(), before, map[string]topology.LSN{"cstproxy_x": o.Replay}); err != nil {
		t.Fatal(err)
	}
	after, err := c.Slots(t.Context())
	if err != nil || len(after) != 3 || after[0].Name != "cstproxy_new" || after[1].Restart <= before[0].Restart || after[2].Name != "somebodys" {
		t.Fatalf("%+v, %v", after, err)
	}
	if err := c.DropSlot(t.Context(), "somebodys"); err != nil {
		t.Fatal(err)
	}
	if again, err := c.Slots(t.Context()); err != nil || len(again) != 3 {
		t.Errorf("a user's slot was dropped: %+v, %v", again, err)
	}
	if err := c.MakeSlot(t.Context(), "It's"); !errors.Is(err, ErrSlotName) {
		t.Error(err)
	}
}

func TestSlotNamesComeFromApplicationNames(t *testing.T) {
	for want, n := range map[string]topology.Node{
		"cstproxy_node3": {ID: 3}, "cstproxy_stb42": {ID: 3, AppName: "stb42"}, "cstproxy_stb_42_": {AppName: "Stb-42é"},
		"cstproxy_" + strings.Repeat("a", 54): {AppName: strings.Repeat("a", 100)},
	} {
		if got := SlotName(n); got != want || !slotNameIsValid(got) {
			t.Errorf("%+v: %s", n, got)
		}
	}
}
