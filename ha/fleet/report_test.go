package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/peer"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func fullReport() *report {
	return &report{Version: reportVersion, Birth: 1<<64 - 1, Number: 4, Clusters: map[string]*share{"c": {
		Request: &lease.Request{Epoch: 7, Known: 2, Birth: 1<<64 - 1, Number: 9}, Frozen: 3, Epoch: 7, Known: 2, Open: 5,
		Nodes: []Seen{{Node: 2, Sight: decide.Sight{Class: decide.Answers, Since: time.Minute, Host: "up", Traffic: true, Why: "well"}, Age: time.Second, PrimaryAge: 2 * time.Second,
			Fact: &decide.Fact{Role: topology.RoleStandby, SystemID: 1<<64 - 3, History: topology.History{Timeline: 3, Forks: []topology.Fork{{Timeline: 1, End: 0x1000000}, {Timeline: 2, End: 1 << 60}}},
				Receive: 1<<63 + 1, Replay: 0x5000000, Streaming: true, Upstream: 1, Recruited: 8, Complete: true, Running: true,
				Settings: record.Settings{MaxConnections: 100}, Primary: decide.Refused, Sync: record.SyncSet{Method: "any", Count: 1, Names: []string{"b"}}}}},
	}}}
}

func TestAReportArrivesAsItWasSent(t *testing.T) {
	sent := fullReport()
	body, err := sent.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeReport(body)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, sent) {
		t.Errorf("sent %+v\ncame %+v", sent.Clusters["c"], got.Clusters["c"])
	}
}

func TestAMalformedReportIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*report){
		"another version": func(r *report) { r.Version = 2 },
		"empty cluster":   func(r *report) { r.Clusters["d"] = nil },
		"negative count":  func(r *report) { r.Clusters["c"].Open = -1 },
		"no such class":   func(r *report) { r.Clusters["c"].Nodes[0].Sight.Class = "asleep" },
		"no such host":    func(r *report) { r.Clusters["c"].Nodes[0].Sight.Host = "sideways" },
		"from the future": func(r *report) { r.Clusters["c"].Nodes[0].Age = -1 },
		"since ever":      func(r *report) { r.Clusters["c"].Nodes[0].Sight.Since = 1<<63 - 1 },
		"asked never":     func(r *report) { r.Clusters["c"].Nodes[0].PrimaryAge = -1 },
		"long reason":     func(r *report) { r.Clusters["c"].Nodes[0].Sight.Why = strings.Repeat("x", 5*maxWhy) },
		"too many nodes":  func(r *report) { r.Clusters["c"].Nodes = make([]Seen, maxNodes+1) },
		"too many clusters": func(r *report) {
			for i := range maxClusters {
				r.Clusters[fmt.Sprint(i)] = &share{}
			}
		},
	} {
		r := fullReport()
		spoil(r)
		body, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeReport(body); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestALongReasonIsCutAndATooLongReportIsNotSent(t *testing.T) {
	r := fullReport()
	r.Clusters["c"].Nodes[0].Sight.Why = strings.Repeat("ä", maxWhy)
	body, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeReport(body); err != nil {
		t.Error(err)
	}
	r.Clusters["c"].Nodes[0].Fact.History.Forks = make([]topology.Fork, 1<<16)
	if _, err := r.encode(); !errors.Is(err, peer.ErrTooLong) {
		t.Errorf("got %v, want %v", err, peer.ErrTooLong)
	}
}

func FuzzDecodeReport(f *testing.F) {
	body, err := fullReport().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := decodeReport(body)
		if err != nil {
			return
		}
		// What was taken can be put into a picture.
		c := &cluster{Cluster: Cluster{Name: "c", Nodes: []decide.Node{{Node: topology.Node{ID: 2}}}}}
		s := (&Fleet{cfg: Config{Terms: terms}}).newSeat(c, &record.Cluster{})
		if r.Clusters["c"] == nil {
			return
		}
		s.heard("a", r, time.Hour)
		if at := s.nodes[0].Fact.At; at < 0 || at > time.Hour {
			t.Errorf("a fact of %v came within %v", at, time.Hour)
		}
	})
}

func TestALateReportSaysNothing(t *testing.T) {
	s := (&Fleet{cfg: Config{Terms: terms}}).newSeat(&cluster{Cluster: Cluster{Name: "c"}}, &record.Cluster{})
	newer, older := fullReport(), fullReport()
	older.Number, older.Clusters["c"].Frozen = newer.Number-1, 2
	s.heard("a", newer, time.Second)
	s.heard("a", older, 2*time.Second)
	if m := s.member("a", "voter"); m.Frozen != 3 || m.Heard != time.Second {
		t.Errorf("an older report was believed: %+v", m)
	}
	older.Birth++ // another life
	s.heard("a", older, 3*time.Second)
	if m := s.member("a", "voter"); m.Frozen != 2 {
		t.Errorf("a report after a restart was not believed: %+v", m)
	}
}

func TestAMembersVersionOfTheStandbysCountsOnlyInItsEpoch(t *testing.T) {
	s := (&Fleet{cfg: Config{Terms: terms}}).newSeat(&cluster{Cluster: Cluster{Name: "c"}}, &record.Cluster{Epoch: record.Epoch{Number: 7}})
	s.heard("a", fullReport(), time.Second)
	if m := s.member("a", "voter"); m.Known != 2 {
		t.Errorf("it knows version %d, want 2", m.Known)
	}
	s.advanced(&record.Cluster{Epoch: record.Epoch{Number: 8}}, 5)
	if m := s.member("a", "voter"); m.Known != 0 {
		t.Errorf("it knows version %d of an epoch that it has not heard of", m.Known)
	}
}
