package admin

import (
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics serves a registry of this server's own: nothing is registered globally, so two servers
// can live in one process.
func (s *Server) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newClusterCollector(s.parts.Observer),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "cstproxy_build_info", Help: "Always 1; the labels tell the version.",
			ConstLabels: prometheus.Labels{"version": s.parts.Version, "go": runtime.Version()},
		}, func() float64 { return 1 }),
	)
	registry.MustRegister(s.parts.Collectors...)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// clusterCollector turns the observer's pictures into metrics when they are asked for.
type clusterCollector struct {
	observer                     Observer
	epoch, hasPrimary, rotation  *prometheus.Desc
	state, lagBytes, lagSeconds  *prometheus.Desc
	timeline, sinceSeen, weights *prometheus.Desc
}

func newClusterCollector(o Observer) *clusterCollector {
	node := []string{"cluster", "node", "address"}
	desc := func(name, help string, labels []string) *prometheus.Desc {
		return prometheus.NewDesc("cstproxy_"+name, help, labels, nil)
	}
	return &clusterCollector{
		observer:   o,
		epoch:      desc("cluster_epoch", "Number of the current choice of primary.", node[:1]),
		hasPrimary: desc("cluster_has_primary", "1 while a primary takes the writes.", node[:1]),
		rotation:   desc("node_in_rotation", "1 while the node takes reads.", node),
		state: desc("node_state", "1 for the role and health that the node has now.",
			[]string{"cluster", "node", "address", "role", "health"}),
		lagBytes:   desc("node_lag_bytes", "WAL that the node has not replayed yet.", node),
		lagSeconds: desc("node_lag_seconds", "Age of the newest replayed transaction while there is something to replay.", node),
		timeline:   desc("node_timeline", "Timeline of the node.", node),
		sinceSeen:  desc("node_last_seen_seconds", "Time since the node last answered a probe.", node),
		weights:    desc("node_weight", "Configured share of the reads.", node),
	}
}

// Describe sends nothing: the set of metrics depends on the configuration, which may be reloaded.
func (c *clusterCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends one picture of every cluster.
func (c *clusterCollector) Collect(out chan<- prometheus.Metric) {
	for _, name := range c.observer.Clusters() {
		cluster, err := c.observer.Cluster(name)
		if err != nil {
			continue // gone with a reload since the list was made
		}
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
		}
		gauge(c.epoch, float64(cluster.Epoch), name)
		gauge(c.hasPrimary, cluster.hasPrimary(), name)
		for _, n := range cluster.Nodes {
			labels := []string{name, strconv.Itoa(n.ID), n.Address()}
			gauge(c.rotation, n.rotation(), labels...)
			gauge(c.weights, float64(n.Weight), labels...)
			gauge(c.state, 1, append(labels, n.Role, n.Health)...)
			if n.LagBytes != nil {
				gauge(c.lagBytes, float64(*n.LagBytes), labels...)
			}
			if n.LagSeconds != nil {
				gauge(c.lagSeconds, *n.LagSeconds, labels...)
			}
			if n.Timeline != 0 {
				gauge(c.timeline, float64(n.Timeline), labels...)
			}
			if n.LastSeen != nil {
				gauge(c.sinceSeen, time.Since(*n.LastSeen).Seconds(), labels...)
			}
		}
	}
}

func (c Cluster) hasPrimary() float64 {
	if c.Primary != 0 {
		return 1
	}
	return 0
}

func (n Node) rotation() float64 {
	if n.InRotation {
		return 1
	}
	return 0
}
