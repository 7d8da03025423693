package member

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/vip"
)

const (
	// frontLook is how often it is looked whether this member holds the members' address, frontPause how often
	// whether that is on this host.
	frontLook  = 50 * time.Millisecond
	frontPause = 200 * time.Millisecond
	// frontMargin is how long before the lease's end the address is taken off: longer than a look and the taking
	// off last, so that it is gone when the leader may give it to another.
	frontMargin = 100 * time.Millisecond
)

// newGuard is for proxy_vip; nil when there is none.
func (m *Member) newGuard() (*vip.Guard, error) {
	if m.cfg.ProxyVIP == "" || m.cfg.Witness {
		return nil, nil
	}
	prefix, err := vip.Parse(m.cfg.ProxyVIP)
	if err != nil {
		return nil, err
	}
	local := vip.NewLocal(m.log)
	if err := local.Capable(); err != nil {
		return nil, err
	}
	return vip.NewGuard(local, vip.VIP{Kind: vip.Member, Prefix: prefix, Interface: m.cfg.ProxyVIPInterface}), nil
}

// mind has the members' address on this host while the leader says that it is this member's, and takes
// it off at the end.
func (m *Member) mind(ctx context.Context) {
	tick := time.NewTicker(frontLook)
	defer tick.Stop()
	holds := func() bool { return m.fleet.Front(frontMargin) }
	var looked time.Time
	held, last := false, ""
	for ctx.Err() == nil {
		if now := holds(); now != held || time.Since(looked) >= frontPause {
			held, looked = now, time.Now()
			last = m.put(ctx, holds, last)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	if err := m.guard.Step(context.WithoutCancel(ctx), vip.No); err != nil {
		m.log.Error("the members' address stays on this host", zap.String("address", m.cfg.ProxyVIP), zap.Error(err))
	}
}

// put has the members' address where it belongs, and says why it is not when that is news.
func (m *Member) put(ctx context.Context, holds func() bool, last string) string {
	text := ""
	if err := m.guard.Step(ctx, holds); err != nil && ctx.Err() == nil {
		text = err.Error()
	}
	if text != "" && text != last {
		m.log.Warn("the members' address is not where it belongs", zap.String("address", m.cfg.ProxyVIP), zap.String("why", text))
	}
	return text
}
