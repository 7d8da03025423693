package proxy

import (
	"crypto/tls"
	"fmt"

	"github.com/cstproxy/cstproxy/balancer"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/router"
)

// loadTLS reads the clients' side certificate; nil when TLS is off.
func loadTLS(cfg Config) (*tls.Config, error) {
	if cfg.TLS == "disable" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(cfg.TLSCertFile, cfg.TLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("load the TLS certificate: %w", err)
	}
	// Large results need not begin with small records: the proxy forwards what is there.
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, DynamicRecordSizingDisabled: true}, nil
}

// Reload is a new configuration of a running Proxy.
type Reload struct {
	Config  Config
	HBA     *auth.Rules
	Routing *router.Rules
	Dialer  *backend.Dialer
	// Balancer and ReadOnly are the policies of ordinary and of read-only listeners, for all
	// clusters.
	Balancer, ReadOnly balancer.Config
}

// Apply puts new settings in force without cutting anybody: listen addresses stay as they are,
// running sessions keep their logins, pools grow or shrink as connections come and go. It fails,
// and changes nothing, when the TLS files cannot be read.
func (p *Proxy) Apply(r Reload) error {
	cfg, err := loadTLS(r.Config)
	if err != nil {
		return err
	}
	p.post(func() {
		p.cfg, p.tls, p.hba, p.routing = r.Config, cfg, r.HBA, r.Routing
		if r.Dialer != nil {
			p.dialer.Store(r.Dialer)
		}
		for _, c := range p.clusters {
			c.pools.Reload(r.Config.MaxServerConnections)
			c.balancer.Configure(r.Balancer)
			c.readOnly.Configure(r.ReadOnly)
		}
		for s := range p.sessions {
			if s.rs != nil && s.phase >= phaseIdle {
				name, _ := s.want.Get(applicationName)
				s.retune(name.Text)
			}
		}
	})
	return nil
}

func (p *Proxy) clientTLS() *tls.Config { return p.tls }
func (p *Proxy) tlsRequired() bool      { return p.cfg.TLS == "require" }
func (p *Proxy) rules() *auth.Rules     { return p.hba }

// poolFor finds the first exception that fits; the zero value when none does.
func (p *Proxy) poolFor(database, user string) PoolConfig {
	for _, pc := range p.cfg.Pools {
		if (pc.Database == "" || pc.Database == database) && (pc.User == "" || pc.User == user) {
			return pc
		}
	}
	return PoolConfig{}
}

func (p *Proxy) poolingFor(database, user string) PoolMode {
	if m := p.poolFor(database, user).Mode; m != "" {
		return m
	}
	return p.cfg.PoolMode
}

// limits are the bounds of one pool.
func (p *Proxy) limits(key backend.Key) backend.Limits {
	l := backend.Limits{Size: p.cfg.PoolSize, MinIdle: p.cfg.MinIdle, IdleTimeout: p.cfg.ServerIdleTimeout,
		Lifetime: p.cfg.ServerLifetime, MaxWaiting: p.cfg.MaxWaiting}
	pc := p.poolFor(key.Database, key.User)
	if pc.Size > 0 {
		l.Size = pc.Size
	}
	if pc.MinIdle > 0 {
		l.MinIdle = pc.MinIdle
	}
	return l
}

// Stats are the data plane's counters.
func (p *Proxy) Stats() *Stats { return p.stats }

// Pools asks the loop for the numbers of all pools; nil when it has ended.
func (p *Proxy) Pools() []backend.Stat {
	answer := make(chan []backend.Stat, 1)
	if !p.post(func() {
		var all []backend.Stat
		for _, c := range p.clusters {
			all = append(all, c.pools.Stats()...)
		}
		answer <- all
	}) {
		return nil
	}
	return <-answer
}
