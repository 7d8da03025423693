package pgnode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// SavedConninfo is the file in the data directory that keeps a recruited standby's primary_conninfo,
// so that whoever leads next can put it back. It holds what postgresql.auto.conf held.
const SavedConninfo = "cstproxy.conninfo"

// Upstream is whom a standby is to follow.
type Upstream struct {
	Host string
	Port int
	// AppName is the standby's application_name; empty keeps what was there.
	AppName string
	// Slot is the physical slot on the upstream; empty for none.
	Slot string
	// Base is what the connection string is built on when the server itself knows none: user,
	// password, TLS. May be nil where the server was a standby before.
	Base Conninfo
}

// ErrNoCredentials is a Follow of a server that has never followed anybody, without a Base.
var ErrNoCredentials = errors.New("nobody knows as whom to replicate: neither the server's primary_conninfo nor the configuration says")

// Conninfo is was, or Base where was is empty, led to the upstream. Several hosts in was (host=a,b)
// become the one.
func (u Upstream) Conninfo(was Conninfo) (Conninfo, error) {
	c := was
	if c.Get("user") == "" && c.Get("service") == "" {
		c = nil
	}
	if c == nil {
		c = u.Base
	}
	if len(c) == 0 {
		return nil, ErrNoCredentials
	}
	c = c.Without("hostaddr", "target_session_attrs", "load_balance_hosts")
	c = c.With("host", u.Host).With("port", fmt.Sprint(u.Port))
	if u.AppName != "" {
		c = c.With("application_name", u.AppName)
	}
	return c, nil
}

// Recruit has a standby leave its upstream for epoch, and returns when its WAL receiver is gone and
// stays gone: from then on nothing that the old primary writes arrives there. The standby goes on
// replaying what it has and answers reads; no restart. The facts are those after.
//
// A repeat does nothing more. If the caller dies in between, the standby is recruited or not, which
// its marker and its receiver tell. A recruit that wakes after a later epoch came by is refused by
// the marker (*Late). ErrNeedsRestart before version 13. A startup process that waits for a lock
// conflict (max_standby_streaming_delay) reads the new setting only after: then ctx ends it, with an
// error.
func (s *Server) Recruit(ctx context.Context, epoch topology.Epoch) (Facts, error) {
	c, err := s.Connect(ctx)
	if err != nil {
		return Facts{}, err
	}
	defer c.Close(ctx)
	facts, err := c.Facts(ctx)
	if err != nil {
		return facts, err
	}
	if !facts.Standby {
		return facts, errNoStandby
	}
	mark := Marker{Epoch: epoch}
	if facts.Marker != mark || facts.Conninfo != nil {
		if err := s.alter(ctx, follows{mark, []setting{{"primary_conninfo", ""}}}); err != nil {
			return facts, fmt.Errorf("recruit: %w", err)
		}
	}
	return c.awaitNoReceiver(ctx, mark)
}

var errNoStandby = &Failure{Cause: Unclassified, Message: "the server is no standby"}

// lookAgain is how often an awaited fact is asked for. A receiver must be missing twice, because one
// that the startup process asked for just before it read the new setting may still appear.
const lookAgain = 25 * time.Millisecond

func (c *Conn) awaitNoReceiver(ctx context.Context, mark Marker) (Facts, error) {
	missing := 0
	return c.awaitFacts(ctx, "the WAL receiver to end", func(f Facts) (bool, error) {
		if f.Marker.Passed(mark) {
			return false, &Late{Seen: f.Marker, Want: mark}
		}
		missing++
		if f.Marker != mark || f.Conninfo != nil || f.Receiver {
			missing = 0
		}
		return missing > 1, nil
	})
}

// awaitFacts asks until done says so; ctx must have an end.
func (c *Conn) awaitFacts(ctx context.Context, what string, done func(Facts) (bool, error)) (Facts, error) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		facts, err := c.Facts(ctx)
		if err != nil {
			return facts, err
		}
		if ok, err := done(facts); ok || err != nil {
			return facts, err
		}
		select {
		case <-ctx.Done():
			return facts, fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}

// Follow has a running standby stream from up, and returns when it does. It takes the connection
// string that the server has, or had before it was recruited. With Release of ha.md it is the same
// act: the upstream is the old one.
//
// A repeat writes the same again. If the caller dies before the reload nothing has changed, after
// it the standby follows. One that wakes after a later epoch came by is refused by the marker
// (*Late). An error of ctx leaves the settings in place: the standby goes on trying.
func (s *Server) Follow(ctx context.Context, epoch topology.Epoch, up Upstream) (Facts, error) {
	c, err := s.Connect(ctx)
	if err != nil {
		return Facts{}, err
	}
	defer c.Close(ctx)
	facts, err := c.Facts(ctx)
	if err != nil {
		return facts, err
	}
	if !facts.Standby {
		return facts, errNoStandby
	}
	was := facts.Conninfo
	if was == nil {
		was = c.savedConninfo(ctx)
	}
	want, err := up.Conninfo(was)
	if err != nil {
		return facts, fmt.Errorf("follow %s: %w", Address(up.Host, fmt.Sprint(up.Port)), err)
	}
	if err := c.forgetPassedOver(ctx); err != nil {
		return facts, fmt.Errorf("follow %s: %w", want.Upstream(), err)
	}
	mark := Marker{Epoch: epoch, Released: true}
	if facts.Marker != mark || facts.Conninfo.String() != want.String() || facts.Slot != up.Slot {
		err := s.alter(ctx, follows{mark, []setting{{"primary_slot_name", up.Slot}, {"primary_conninfo", want.String()}}})
		if err != nil {
			return facts, fmt.Errorf("follow %s: %w", want.Upstream(), err)
		}
	}
	return c.awaitStream(ctx, mark, want.Upstream())
}

// awaitStream waits until the same WAL receiver is connected to the upstream twice in a row.
func (c *Conn) awaitStream(ctx context.Context, mark Marker, upstream string) (Facts, error) {
	pid := 0
	return c.awaitFacts(ctx, "the standby to stream from "+upstream, func(f Facts) (bool, error) {
		if f.Marker.Passed(mark) {
			return false, &Late{Seen: f.Marker, Want: mark}
		}
		before := pid
		pid = 0
		if f.Marker == mark && f.Streaming && f.Upstream == upstream {
			pid = f.ReceiverPID
		}
		return pid != 0 && pid == before, nil
	})
}

// keepConninfo writes a connection string that is about to be emptied to SavedConninfo. That it
// cannot (a full disk) must not keep a standby from being recruited: the configuration's
// credentials are there for that.
func (c *Conn) keepConninfo(ctx context.Context, f Facts) error {
	if f.Conninfo == nil {
		return nil
	}
	_, err := c.query(ctx, "COPY (SELECT replace(encode(convert_to("+quoted(f.Conninfo.String())+", 'UTF8'), 'base64'), E'\\n', '')) TO "+
		quoted(f.DataDir+"/"+SavedConninfo))
	if err != nil && c.Broken() {
		return err
	}
	return nil
}

// savedConninfo is what keepConninfo wrote; nil when there is nothing to be read.
func (c *Conn) savedConninfo(ctx context.Context) Conninfo {
	row, err := c.one(ctx, "SELECT convert_from(decode(pg_read_file("+quoted(SavedConninfo)+", 0, 100000, true), 'base64'), 'UTF8')", 1)
	if err != nil {
		return nil
	}
	saved, err := ParseConninfo(string(row[0]))
	if err != nil {
		return nil
	}
	return saved
}
