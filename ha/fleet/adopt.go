package fleet

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Stamp is what a host remembers of a fleet that acted on a cluster there.
type Stamp struct {
	Fleet   string         `json:"fleet"`
	Cluster string         `json:"cluster"`
	Epoch   topology.Epoch `json:"epoch"`
}

// Adoption takes the clusters over from a fleet that is no more.
type Adoption struct {
	// Cluster and Epoch, unless 0, make that cluster begin with Epoch at least.
	Cluster string         `json:"cluster,omitempty"`
	Epoch   topology.Epoch `json:"epoch,omitempty"`
	// By is the operator's name.
	By string `json:"by"`
}

// Adopted is what came of an Adoption.
type Adopted struct {
	Fleet string `json:"fleet"`
	// Floors are the epochs above which each cluster begins.
	Floors map[string]topology.Epoch `json:"floors"`
	// Former are the fleets that acted on the hosts before.
	Former []string `json:"former,omitempty"`
	// Missing are why some hosts could not be read, one sentence each.
	Missing []string `json:"missing,omitempty"`
}

// Adopt gives this fleet its name although the hosts remember another one: its clusters begin above
// the highest epoch that any host has seen. It is an operator's word that the other fleet is no more.
// Errors as of Command; a fleet that has its name already refuses.
func (f *Fleet) Adopt(ctx context.Context, a Adoption) (Adopted, error) {
	if a.Cluster != "" {
		if err := f.configured(a.Cluster); err != nil {
			return Adopted{}, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*orderTime)
	defer cancel()
	var got Adopted
	err := f.ask(ctx, adoptMethod, a, &got)
	return got, err
}

func (f *Fleet) adopt(ctx context.Context, a Adoption) (Adopted, error) {
	if _, err := f.throne(ctx); err != nil {
		return Adopted{}, err
	}
	if state, _ := f.parts.Log.State(); state.Fleet != "" {
		return Adopted{}, refused("this fleet (%s) has begun already%s; only a fleet that has not can adopt", state.Fleet, epochs(state))
	}
	s := f.survey(ctx)
	if a.Epoch > 0 {
		s.floors[a.Cluster] = max(s.floors[a.Cluster], a.Epoch-1)
	}
	got := Adopted{Fleet: rand.Text(), Floors: s.floors, Former: s.former, Missing: s.missing}
	err := f.parts.Log.Propose(ctx, record.Entry{Proposer: f.cfg.Name, Found: &record.Found{Fleet: got.Fleet, Floors: s.floors}})
	if err == nil {
		f.log.Info("fleet adopts its clusters", zap.String("why", "asked for by "+a.By), zap.Strings("former", s.former), zap.Any("floors", s.floors))
	}
	return got, err
}

func epochs(state *record.State) string {
	var list []string
	for name, c := range state.Clusters {
		list = append(list, fmt.Sprintf("%s is at epoch %d", name, c.Epoch.Number))
	}
	slices.Sort(list)
	if len(list) == 0 {
		return ""
	}
	return ": " + strings.Join(list, ", ")
}

// surveyed is what the hosts remember of fleets before.
type surveyed struct {
	floors  map[string]topology.Epoch // highest epoch, by cluster
	former  []string
	missing []string
}

// survey asks the hosts of every cluster.
func (f *Fleet) survey(ctx context.Context) surveyed {
	s := surveyed{floors: map[string]topology.Epoch{}}
	ctx, cancel := context.WithTimeout(ctx, orderTime/2)
	defer cancel()
	for _, c := range f.clusters {
		if c.Servers.Stamps == nil {
			continue
		}
		stamps, missing := c.Servers.Stamps(ctx)
		for _, text := range missing {
			s.missing = append(s.missing, c.Name+": "+text)
		}
		for _, stamp := range stamps {
			if stamp.Cluster != c.Name {
				continue
			}
			s.floors[c.Name] = max(s.floors[c.Name], stamp.Epoch)
			if !slices.Contains(s.former, stamp.Fleet) {
				s.former = append(s.former, stamp.Fleet)
			}
		}
	}
	slices.Sort(s.former)
	return s
}

// secondLook is the pause before hosts are asked again that remembered another fleet, and unread
// how long those are waited for that do not answer.
const (
	secondLook = 5 * time.Second
	unread     = 15 * time.Second
)

// found gives the fleet its name, once in its life. It does not where hosts remember another fleet,
// which may be alive: that takes an operator's Adopt.
func (f *Fleet) found(ctx context.Context) {
	began := Now()
	for ctx.Err() == nil {
		changed := f.parts.Log.Changed()
		if state, _ := f.parts.Log.State(); state.Fleet != "" {
			f.foundable("")
			return
		}
		s := f.survey(ctx)
		switch {
		case len(s.former) > 0:
			f.foundable(fmt.Sprintf("the hosts remember another fleet (%s): if that one is no more, run `cstproxy ctl adopt`", strings.Join(s.former, ", ")))
		case len(s.missing) > 0 && Now()-began < unread:
			f.foundable("")
		default:
			f.propose(ctx, record.Entry{Proposer: f.cfg.Name, Found: &record.Found{Fleet: rand.Text()}})
			continue
		}
		pause := time.NewTimer(secondLook)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-pause.C:
		}
		pause.Stop()
	}
}

// foundable notes why the fleet has no name yet.
func (f *Fleet) foundable(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if why != "" && why != f.unfounded {
		f.log.Warn("alarm", zap.String("why", why))
	}
	f.unfounded = why
}
