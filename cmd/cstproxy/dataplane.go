package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/conf"
	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// dataPlane is what of the data plane the rest of this package knows.
type dataPlane struct {
	draining chan struct{} // closed when no new clients are taken any more
}

func newDataPlane(_ *conf.Config, _ map[string]*topology.Board, _ *ha.Agent, _ *zap.Logger) (*dataPlane, error) {
	return &dataPlane{draining: make(chan struct{})}, nil
}

// rotation is the balancer's answer to "which nodes take reads now".
func rotation(*conf.Config) ha.Rotation { return nil }

func (d *dataPlane) run(ctx context.Context) error {
	<-ctx.Done()
	close(d.draining)
	return nil
}

func (d *dataPlane) ready() string {
	select {
	case <-d.draining:
		return "draining"
	default:
		return ""
	}
}

func (d *dataPlane) stats() any { return struct{}{} }

func (d *dataPlane) collectors() []prometheus.Collector { return nil }

func (d *dataPlane) apply(*conf.Config) error { return nil }
