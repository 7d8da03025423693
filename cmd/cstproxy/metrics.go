package main

import (
	"fmt"
	"sort"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cstproxy/cstproxy/proxy"
	"github.com/cstproxy/cstproxy/proxy/backend"
)

// stats is the data plane's account for ctl stats and /api/v1/stats.
func (d *dataPlane) stats() any {
	st := d.proxy.Stats()
	return map[string]any{
		"clients": st.Clients.Load(), "accepted": st.Accepted.Load(),
		"logins": st.Logins.Load(), "login_failures": st.LoginFailures.Load(),
		"cancels": st.Cancels.Load(), "cancels_ignored": st.CancelsLost.Load(),
		"reruns_lost": st.RerunLost.Load(), "reruns_refused": st.RerunRefused.Load(),
		"held_requests": st.HeldTurns.Load(), "held_answers": st.HeldAnswers.Load(),
		"refusals": st.Refusals(), "pins": st.Pins(), "turns": turnRows(st.Turns()), "pools": poolRows(d.proxy.Pools()),
	}
}

type turnRow struct {
	Cluster string `json:"cluster"`
	Node    int    `json:"node"`
	Target  string `json:"target"`
	Turns   uint64 `json:"turns"`
}

func turnRows(list []proxy.TurnCount) []turnRow {
	rows := make([]turnRow, len(list))
	for i, t := range list {
		rows[i] = turnRow{t.Cluster, int(t.Node), t.Target, t.Count}
	}
	sort.Slice(rows, func(i, j int) bool { return fmt.Sprint(rows[i]) < fmt.Sprint(rows[j]) })
	return rows
}

type poolRow struct {
	Cluster  string `json:"cluster"`
	Node     int    `json:"node"`
	Database string `json:"database"`
	User     string `json:"user"`
	Active   int    `json:"active"`
	Idle     int    `json:"idle"`
	Waiting  int    `json:"waiting"`
	Dialing  int    `json:"dialing"`
	Size     int    `json:"size"`
	Opened   uint64 `json:"opened"`
	Lost     uint64 `json:"lost"`
}

func poolRows(list []backend.Stat) []poolRow {
	rows := make([]poolRow, len(list))
	for i, p := range list {
		rows[i] = poolRow{p.Key.Cluster, int(p.Key.Node), p.Key.Database, p.Key.User, p.Active, p.Idle, p.Waiting, p.Dialing, p.Size, p.Opened, p.Lost}
	}
	sort.Slice(rows, func(i, j int) bool { return fmt.Sprint(rows[i]) < fmt.Sprint(rows[j]) })
	return rows
}

func (d *dataPlane) collectors() []prometheus.Collector {
	return []prometheus.Collector{newProxyCollector(d.proxy)}
}

// proxyCollector turns the data plane's counters into metrics when they are asked for.
type proxyCollector struct {
	proxy           *proxy.Proxy
	turns, refusals *prometheus.Desc
	pins            *prometheus.Desc
	pool, waited    *prometheus.Desc
	lease, writes   *prometheus.Desc
	single          []singleMetric
}

// singleMetric is one number without labels.
type singleMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func() float64
}

func newProxyCollector(p *proxy.Proxy) *proxyCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("cstproxy_"+name, help, labels, nil)
	}
	pool := []string{"cluster", "node", "database", "user"}
	c := &proxyCollector{
		proxy:    p,
		turns:    desc("turns_total", "Turns answered, by node and by what they were taken for.", "cluster", "node", "target"),
		refusals: desc("refusals_total", "Errors that the proxy itself gave, by SQLSTATE.", "sqlstate"),
		pins:     desc("pinned_sessions", "Sessions that keep their server connection outside transactions, by reason.", "reason"),
		pool:     desc("pool_connections", "Server connections by state; waiting counts the turns that wait for one.", append(pool, "state")...),
		lease:    desc("lease_remaining_seconds", "For how long this member may use the cluster's primary without a renewal; 0 when it may not. Only where there is a fleet.", "cluster"),
		writes:   desc("open_writes", "Sessions with a transaction open on the primary, or a turn under way there.", "cluster"),
		waited:   desc("pool_waited_seconds_total", "Time that turns have waited for a server connection.", pool...),
	}
	st := p.Stats()
	counter := func(name, help string, load func() uint64) {
		c.single = append(c.single, singleMetric{desc(name, help), prometheus.CounterValue, func() float64 { return float64(load()) }})
	}
	gauge := func(name, help string, load func() int64) {
		c.single = append(c.single, singleMetric{desc(name, help), prometheus.GaugeValue, func() float64 { return float64(load()) }})
	}
	gauge("clients", "Client connections now.", st.Clients.Load)
	gauge("held_requests", "Requests and first logins that wait for a primary, or for the permission to use it.", st.HeldTurns.Load)
	gauge("held_answers", "Sessions to which an answer of the primary is not passed on until this member's lease is renewed.", st.HeldAnswers.Load)
	counter("accepted_total", "Client connections since the start.", st.Accepted.Load)
	counter("logins_total", "Logins that succeeded.", st.Logins.Load)
	counter("login_failures_total", "Logins that failed.", st.LoginFailures.Load)
	counter("cancels_total", "Cancel requests passed on.", st.Cancels.Load)
	counter("cancels_ignored_total", "Cancel requests with a wrong key, or too many.", st.CancelsLost.Load)
	counter("reruns_lost_total", "Reads run again because their server was lost.", st.RerunLost.Load)
	counter("reruns_refused_total", "Turns run again on the primary because a standby refused them.", st.RerunRefused.Load)
	return c
}

// Describe sends nothing: the labels depend on the traffic.
func (c *proxyCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the counters of this moment.
func (c *proxyCollector) Collect(out chan<- prometheus.Metric) {
	for _, m := range c.single {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value())
	}
	for _, u := range c.proxy.Primaries() {
		out <- prometheus.MustNewConstMetric(c.writes, prometheus.GaugeValue, float64(u.OpenWrites), u.Cluster)
		if u.Leased {
			out <- prometheus.MustNewConstMetric(c.lease, prometheus.GaugeValue, u.Remaining.Seconds(), u.Cluster)
		}
	}
	for _, t := range c.proxy.Stats().Turns() {
		out <- prometheus.MustNewConstMetric(c.turns, prometheus.CounterValue, float64(t.Count), t.Cluster, strconv.Itoa(int(t.Node)), t.Target)
	}
	for reason, n := range c.proxy.Stats().Pins() {
		out <- prometheus.MustNewConstMetric(c.pins, prometheus.GaugeValue, float64(n), reason)
	}
	for code, n := range c.proxy.Stats().Refusals() {
		out <- prometheus.MustNewConstMetric(c.refusals, prometheus.CounterValue, float64(n), code)
	}
	for _, p := range c.proxy.Pools() {
		labels := []string{p.Key.Cluster, strconv.Itoa(int(p.Key.Node)), p.Key.Database, p.Key.User}
		for state, n := range map[string]int{"active": p.Active, "idle": p.Idle, "waiting": p.Waiting, "dialing": p.Dialing} {
			out <- prometheus.MustNewConstMetric(c.pool, prometheus.GaugeValue, float64(n), append(labels, state)...)
		}
		out <- prometheus.MustNewConstMetric(c.waited, prometheus.CounterValue, p.WaitedTotal.Seconds(), labels...)
	}
}
