package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cstproxy/cstproxy/balancer"
	"github.com/cstproxy/cstproxy/conf"
	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/catalog"
	"github.com/cstproxy/cstproxy/router"
)

// dataPlane is the proxy with what it asks its questions through.
type dataPlane struct {
	proxy    *proxy.Proxy
	stores   []*catalog.Store
	draining atomic.Bool
	pulse    pulse
}

// newDataPlane opens the clients' ports; nobody is accepted before run.
func newDataPlane(cfg *conf.Config, boards map[string]*topology.Board, agent *ha.Agent, log *zap.Logger) (*dataPlane, error) {
	settings, err := settingsOf(cfg)
	if err != nil {
		return nil, err
	}
	parts := proxy.Parts{HBA: settings.HBA, Routing: settings.Routing, Dialer: settings.Dialer}
	d := &dataPlane{}
	for i := range cfg.HA.Clusters {
		c := &cfg.HA.Clusters[i]
		asking := cfg.Catalog
		if asking.AuthUser, asking.AuthPassword, err = login(c); err != nil {
			return nil, err
		}
		store := catalog.New(asking, boards[c.Name], settings.Dialer, log.With(zap.String("cluster", c.Name)))
		d.stores = append(d.stores, store)
		parts.Clusters = append(parts.Clusters, proxy.Cluster{
			Name: c.Name, Board: boards[c.Name], Catalog: store,
			Balancer: balancer.New(cfg.Balancer), ReadOnly: balancer.New(readOnly(cfg.Balancer)),
			Failed: func(node topology.NodeID) { agent.ReportFailure(c.Name, node) },
		})
	}
	if d.proxy, err = proxy.New(cfg.Proxy, parts, log); err != nil {
		return nil, err
	}
	d.pulse.ask = func() { d.proxy.Pools() } // any question makes the round through the loop
	return d, nil
}

// readOnly is the policy of ports for reads only. A client there could send a write, and on the
// primary it would succeed.
func readOnly(c balancer.Config) balancer.Config {
	c.PrimaryReads, c.ReadConsistency = balancer.Never, balancer.Eventual
	return c
}

// rotation is the balancer's answer to "which nodes take reads now".
func rotation(cfg *conf.Config) ha.Rotation { return balancer.Rotation(cfg.Balancer) }

// settingsOf makes what a reload can replace; reading the TLS files can fail.
func settingsOf(cfg *conf.Config) (proxy.Reload, error) {
	r := proxy.Reload{Config: cfg.Proxy}
	var err error
	if r.HBA, err = auth.ParseRules(cfg.HBA); err != nil {
		return proxy.Reload{}, err
	}
	if r.Routing, err = router.CompileRules(cfg.Routing.Rules); err != nil {
		return proxy.Reload{}, err
	}
	dial := backend.DefaultDialConfig()
	dial.Timeout = cfg.Proxy.ServerConnectTimeout
	dial.TLS = backend.TLSMode(cfg.Proxy.ServerTLS)
	dial.CAFile, dial.CertFile, dial.KeyFile = cfg.Proxy.ServerTLSCAFile, cfg.Proxy.ServerTLSCertFile, cfg.Proxy.ServerTLSKeyFile
	dial.PasswordFile = passwordFile(cfg)
	if r.Dialer, err = backend.NewDialer(dial); err != nil {
		return proxy.Reload{}, fmt.Errorf("prepare server connections: %w", err)
	}
	return r, nil
}

// passwordFile is the configured one, or libpq's when it exists.
func passwordFile(cfg *conf.Config) string {
	if cfg.Proxy.PasswordFile != "" {
		return cfg.Proxy.PasswordFile
	}
	path := os.Getenv("PGPASSFILE")
	if home, err := os.UserHomeDir(); path == "" && err == nil {
		path = filepath.Join(home, ".pgpass")
	}
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// login is whom the cluster's servers are asked as.
func login(c *ha.ClusterConfig) (user, password string, err error) {
	if c.PasswordFile == "" {
		return c.AuthUser, c.Password, nil
	}
	password, err = conf.ReadSecret(c.PasswordFile)
	if err != nil {
		return "", "", fmt.Errorf("cluster %s: password_file: %w", c.Name, err)
	}
	return c.AuthUser, password, nil
}

// run serves until ctx ends and everybody has left. The stores live longer than the sessions, which
// may still ask them something.
func (d *dataPlane) run(ctx context.Context) error {
	parts, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	asking, endAsking := context.WithCancel(failed)
	defer endAsking()
	serving, endServing := context.WithCancel(ctx)
	defer endServing()
	defer context.AfterFunc(failed, endServing)()
	defer context.AfterFunc(ctx, func() { d.draining.Store(true) })()
	for _, store := range d.stores {
		parts.Go(func() error { return store.Run(asking) })
	}
	parts.Go(func() error {
		defer endAsking()
		return d.proxy.Run(serving)
	})
	return parts.Wait()
}

func (d *dataPlane) ready() string {
	if d.draining.Load() {
		return "draining"
	}
	return ""
}

// apply puts what a reload can change in force, or nothing.
func (d *dataPlane) apply(cfg *conf.Config) error {
	settings, err := settingsOf(cfg)
	if err != nil {
		return err
	}
	return d.proxy.Apply(settings)
}
