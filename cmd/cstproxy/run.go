package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/conf"
	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/member"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func newRunCommand() *cobra.Command {
	var file string
	var logs logOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the proxy in the foreground",
		Long: "Run serves until SIGTERM or SIGINT: then it takes no new clients, lets transactions finish\n" +
			"(at most proxy.drain_timeout) and ends; a second signal ends it now. SIGHUP reads the\n" +
			"configuration again; a file with a problem is refused as a whole, and the log says why.",
		Args: takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := configFile(file)
			if err != nil {
				return err
			}
			cfg, err := conf.Load(path, os.Environ())
			if err != nil {
				return err
			}
			log, ring, err := newLogger(logs)
			if err != nil {
				return err
			}
			defer func() { _ = log.Sync() }() // standard error cannot always be synced
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
			}
			s, err := newService(cfg, ring, log)
			if err != nil {
				return err
			}
			return s.run(cmd.Context())
		},
	}
	fileFlag(cmd, &file)
	cmd.Flags().StringVar(&logs.format, "log-format", "json", "json or console")
	cmd.Flags().StringVar(&logs.level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// gcPercent lets the heap grow by less than Go's default of 100 % between collections. Turns allocate
// nothing, so collections are rare and cheap, and what thousands of logins leave behind goes sooner.
const gcPercent = 40

// service is one running cstproxy: the control plane, the data plane, and the admin port.
type service struct {
	cfg    *conf.Config                // what runs; only run's signal goroutine reads and replaces it
	shown  atomic.Pointer[conf.Config] // cfg, for everybody else
	log    *zap.Logger
	agent  *ha.Agent
	policy *policy
	data   *dataPlane
	member *member.Member // nil when this process only watches, and alone
	admin  *admin.Server  // nil when it is switched off
}

// newService puts the parts together and opens every listening socket, so that an address that is
// taken is the process's end before anything else has begun.
func newService(cfg *conf.Config, ring *admin.Ring, log *zap.Logger) (*service, error) {
	boards := map[string]*topology.Board{}
	for _, c := range cfg.HA.Clusters {
		boards[c.Name] = topology.NewBoard(c.Name)
	}
	s := &service{cfg: cfg, log: log, policy: newPolicy(cfg.Balancer)}
	s.shown.Store(cfg)
	var err error
	if s.agent, err = ha.New(cfg.HA, boards, s.policy.rotation, log.Named("ha")); err != nil {
		return nil, fmt.Errorf("prepare the agent: %w", err)
	}
	if s.data, err = newDataPlane(cfg, boards, s.agent, log.Named("proxy")); err != nil {
		return nil, fmt.Errorf("prepare the data plane: %w", err)
	}
	if !cfg.Fleet.Alone() || member.Operated(cfg.HA) {
		parts := member.Parts{
			Agent: s.agent, Open: s.data.proxy.OpenWrites, Traffic: newTraffic(s.data.proxy, cfg.HA.ProbeInterval).flows,
			Admin: cfg.Admin.Listen, Version: version,
		}
		if s.member, err = member.New(cfg.Fleet, cfg.HA, parts, log.Named("ha")); err != nil {
			return nil, fmt.Errorf("prepare the member: %w", err)
		}
	}
	if cfg.Admin.Listen == "" {
		return s, nil
	}
	ln, err := net.Listen("tcp", cfg.Admin.Listen)
	if err != nil {
		return nil, fmt.Errorf("open the admin port: %w", err)
	}
	source := admin.NewSource(s.agent)
	parts := admin.Parts{
		Observer: source, Backends: source, Nodes: source, Replication: source, Log: ring,
		Live: s.data.pulse.alive, Ready: s.data.ready, Stats: s.data.stats, Collectors: s.data.collectors(), Version: version,
	}
	if s.member != nil {
		parts.Fleet = newFleetSource(s.member.Fleet(), s.member.Init, s.file, s.member.Policies)
	}
	s.admin = admin.New(cfg.Admin, ln, parts, log.Named("admin"))
	log.Info("admin port is open", zap.String("address", ln.Addr().String()))
	return s, nil
}

// errNow ends the process without waiting for anybody.
var errNow = errors.New("told twice to end")

// run ends when ctx does, when a signal says so, or when a part fails. The data plane ends first:
// while transactions finish, the control plane still watches and the admin port says "draining".
func (s *service) run(ctx context.Context) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	parts, control := errgroup.WithContext(context.WithoutCancel(ctx))
	control, endControl := context.WithCancel(control)
	defer endControl()
	data, endData := context.WithCancel(control)
	defer endData()
	stop := context.AfterFunc(ctx, endData)
	defer stop()

	now := make(chan struct{})
	parts.Go(func() error { return named("agent", s.agent.Run(control)) })
	if s.member != nil {
		parts.Go(func() error { return named("member", s.member.Run(control)) })
	}
	if s.admin != nil {
		parts.Go(func() error { return named("admin port", s.admin.Run(control)) })
	}
	parts.Go(func() error {
		defer endControl()
		return named("data plane", s.data.run(data))
	})
	parts.Go(func() error { return named("watchdog", s.feedWatchdog(control)) })
	parts.Go(func() error {
		s.obey(control, signals, sessionEnd{drain: endData, now: func() { close(now) }})
		return nil
	})
	s.notify(daemon.SdNotifyReady)
	s.log.Info("running", zap.String("version", version), zap.String("file", s.cfg.Path()), zap.Int("pid", os.Getpid()))

	ended := make(chan error, 1)
	go func() { ended <- parts.Wait() }()
	select {
	case err := <-ended:
		s.log.Info("ended", zap.Error(err))
		return err
	case <-now:
		s.log.Warn("ended at once; open transactions were cut", zap.String("why", errNow.Error()))
		return errNow
	}
}

// file is what the configuration in force says of a cluster, secrets masked.
func (s *service) file(cluster string) clusterFile {
	cfg := s.shown.Load()
	f, values := clusterFile{}, map[string]string{}
	for i := range cfg.HA.Clusters {
		if c := &cfg.HA.Clusters[i]; c.Name == cluster {
			f.WriteVIP, f.ReadVIP = c.WriteVIP, c.ReadVIP
		}
	}
	prefix := "cluster[" + cluster + "]."
	for _, setting := range cfg.Settings() {
		if key, ours := strings.CutPrefix(setting.Key, prefix); ours {
			values[key] = setting.Value
		}
	}
	f.Values = values
	return f
}

func named(part string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", part, err)
	}
	return nil
}

// sessionEnd is what the two stages of ending do.
type sessionEnd struct {
	drain func()
	now   func()
}

// obey handles signals until ctx ends.
func (s *service) obey(ctx context.Context, signals <-chan os.Signal, end sessionEnd) {
	told := 0
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP:
				s.reload()
			case told == 0:
				told++
				s.log.Info("draining", zap.String("why", sig.String()), zap.Duration("limit", s.cfg.Proxy.DrainTimeout))
				s.notify(daemon.SdNotifyStopping)
				end.drain()
			default:
				end.now()
				return
			}
		}
	}
}

// reload reads the configuration again and puts it in force as a whole, or not at all.
func (s *service) reload() {
	s.notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
	defer s.notify(daemon.SdNotifyReady)
	began := time.Now()
	next, err := conf.Load(s.cfg.Path(), os.Environ())
	if err != nil {
		s.refuse(err)
		return
	}
	changes := next.Diff(s.cfg)
	next.KeepUntilRestart(s.cfg)
	if err := s.apply(next); err != nil {
		s.refuse(err)
		return
	}
	for _, ch := range changes {
		if ch.Restart {
			s.log.Warn("setting waits for a restart", zap.String("key", ch.Key), zap.String("old", ch.Old), zap.String("new", ch.New))
		} else {
			s.log.Info("setting changed", zap.String("key", ch.Key), zap.String("old", ch.Old), zap.String("new", ch.New))
		}
	}
	s.cfg = next
	s.shown.Store(next)
	s.log.Info("configuration reloaded", zap.Int("changes", len(changes)), zap.Duration("lasted", time.Since(began)))
}

// apply tells every part. A part that refuses has changed nothing; those before it go back.
func (s *service) apply(next *conf.Config) error {
	if err := s.agent.Apply(next.HA); err != nil {
		return err
	}
	if err := s.data.apply(next); err != nil {
		return errors.Join(err, s.agent.Apply(s.cfg.HA))
	}
	if s.member != nil {
		if err := s.member.Apply(next.HA); err != nil {
			return errors.Join(err, s.data.apply(s.cfg), s.agent.Apply(s.cfg.HA))
		}
	}
	s.policy.config.Store(&next.Balancer)
	if s.admin != nil {
		s.admin.Apply(next.Admin)
	}
	return nil
}

// refuse logs every problem of a configuration that is not taken over.
func (s *service) refuse(err error) {
	var problems conf.Problems
	if errors.As(err, &problems) {
		for _, p := range problems {
			s.log.Error("problem in the configuration", zap.String("file", p.File), zap.Int("line", p.Line), zap.String("why", p.Text))
		}
		err = errors.New("the file has problems, see above")
	}
	s.log.Error("reload refused; the old configuration stays in force", zap.Error(err))
}

// notify tells systemd, when it started us.
func (s *service) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Debug("systemd was not told", zap.Error(err))
	}
}
