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
	"github.com/cstproxy/cstproxy/router"
)

// dataPlane is the proxy with what it asks its questions through.
type dataPlane struct {
	proxy    *proxy.Proxy
	catalogs map[string]*catalogs // by cluster
	draining atomic.Bool
	witness  bool // no port is open
	pulse    pulse
}

// newDataPlane opens the clients' ports, of which a witness has none; nobody is accepted before run.
func newDataPlane(cfg *conf.Config, boards map[string]*topology.Board, agent *ha.Agent, log *zap.Logger) (*dataPlane, error) {
	settings, err := settingsOf(cfg)
	if err != nil {
		return nil, err
	}
	parts := proxy.Parts{HBA: settings.HBA, Routing: settings.Routing, Dialer: settings.Dialer}
	d := &dataPlane{catalogs: map[string]*catalogs{}}
	for i := range cfg.HA.Clusters {
		name := cfg.HA.Clusters[i].Name
		known := newCatalogs(boards[name], settings.asking[name], settings.Dialer, log.With(zap.String("cluster", name)))
		d.catalogs[name] = known
		parts.Clusters = append(parts.Clusters, proxy.Cluster{
			Name: name, Board: boards[name], Catalog: known,
			Balancer: balancer.New(cfg.Balancer), ReadOnly: balancer.New(readOnly(cfg.Balancer)),
			Failed: func(node topology.NodeID) { agent.ReportFailure(name, node) },
		})
	}
	listens := cfg.Proxy
	if d.witness = cfg.Fleet.Witness; d.witness {
		listens.Listen, listens.Listeners = "", nil
		log.Info("the clients' ports stay closed", zap.String("why", routesNothing))
	}
	if d.proxy, err = proxy.New(listens, parts, log); err != nil {
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

// policy is the balancer's configuration in force, for the agent's answers to "which nodes take
// reads now".
type policy struct {
	config atomic.Pointer[balancer.Config]
}

func newPolicy(c balancer.Config) *policy {
	p := &policy{}
	p.config.Store(&c)
	return p
}

func (p *policy) rotation(v *topology.View) []topology.NodeID {
	return balancer.Rotation(*p.config.Load())(v)
}

// settings is what a reload can replace.
type settings struct {
	proxy.Reload
	asking map[string]asking // by cluster
}

// settingsOf reads the files that a configuration names, which can fail.
func settingsOf(cfg *conf.Config) (settings, error) {
	s := settings{Reload: proxy.Reload{Config: cfg.Proxy, Balancer: cfg.Balancer, ReadOnly: readOnly(cfg.Balancer)}, asking: map[string]asking{}}
	var err error
	if s.HBA, err = auth.ParseRules(cfg.HBA); err != nil {
		return settings{}, err
	}
	if s.Routing, err = router.CompileRules(cfg.Routing.Rules); err != nil {
		return settings{}, err
	}
	dial := backend.DefaultDialConfig()
	dial.ApplicationName = "" // RESET application_name must find what a direct client would
	dial.Timeout, dial.TLS = cfg.Proxy.ServerConnectTimeout, backend.TLSMode(cfg.Proxy.ServerTLS)
	dial.CAFile, dial.CertFile, dial.KeyFile = cfg.Proxy.ServerTLSCAFile, cfg.Proxy.ServerTLSCertFile, cfg.Proxy.ServerTLSKeyFile
	dial.PasswordFile = passwordFile(cfg)
	if s.Dialer, err = backend.NewDialer(dial); err != nil {
		return settings{}, fmt.Errorf("prepare server connections: %w", err)
	}
	for i := range cfg.HA.Clusters {
		c := &cfg.HA.Clusters[i]
		ask := asking{catalog: cfg.Catalog, dial: dial}
		if ask.catalog.AuthUser, ask.catalog.AuthPassword, err = login(c); err != nil {
			return settings{}, err
		}
		s.asking[c.Name] = ask
	}
	return s, nil
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

// run serves until ctx ends and everybody has left. The catalogues live longer than the sessions, which
// may still ask them something.
func (d *dataPlane) run(ctx context.Context) error {
	parts, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	asking, endAsking := context.WithCancel(failed)
	defer endAsking()
	serving, endServing := context.WithCancel(ctx)
	defer endServing()
	defer context.AfterFunc(failed, endServing)()
	defer context.AfterFunc(ctx, func() { d.draining.Store(true) })()
	for _, known := range d.catalogs {
		parts.Go(func() error { return known.run(asking) })
	}
	parts.Go(func() error {
		defer endAsking()
		return d.proxy.Run(serving)
	})
	return parts.Wait()
}

// routesNothing is why a witness takes no clients.
const routesNothing = "witness: routes nothing"

func (d *dataPlane) ready() string {
	switch {
	case d.witness:
		return routesNothing
	case d.draining.Load():
		return "draining"
	}
	return ""
}

// apply puts what a reload can change in force, or nothing.
func (d *dataPlane) apply(cfg *conf.Config) error {
	next, err := settingsOf(cfg)
	if err != nil {
		return err
	}
	if err := d.proxy.Apply(next.Reload); err != nil {
		return err
	}
	for name, known := range d.catalogs {
		if err := known.apply(next.asking[name], next.Dialer); err != nil {
			return err
		}
	}
	return nil
}
