package member

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/vip"
)

// frontPause is how often it is looked whether this member holds the members' address.
const frontPause = 200 * time.Millisecond

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
	tick := time.NewTicker(frontPause)
	defer tick.Stop()
	last := ""
	for ctx.Err() == nil {
		duty := vip.Leave
		if m.fleet.Front(0) {
			duty = vip.Hold
		}
		text := ""
		if err := m.guard.Step(ctx, duty); err != nil {
			text = err.Error()
		}
		if text != "" && text != last {
			m.log.Warn("the members' address is not where it belongs", zap.String("address", m.cfg.ProxyVIP), zap.String("why", text))
		}
		last = text
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	if err := m.guard.Step(context.WithoutCancel(ctx), vip.Leave); err != nil {
		m.log.Error("the members' address stays on this host", zap.String("address", m.cfg.ProxyVIP), zap.Error(err))
	}
}
