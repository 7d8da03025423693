package ha

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestOnlyANewEpochTakesNoBreath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		poke, urge := make(chan struct{}, 1), make(chan struct{}, 1)
		w := &watcher{poke: poke, urge: urge, timing: func() timing { return timing{interval: time.Minute} }, lost: func() {}}
		rested := func() (time.Duration, asking) {
			began := time.Now()
			why := w.rest(t.Context(), began)
			return time.Since(began), why
		}
		wake(poke)
		if d, why := rested(); d != breath || why != inTime {
			t.Errorf("poked: rested for %s, asked %d", d, why)
		}
		wake(urge)
		if d, why := rested(); d != 0 || why != urged {
			t.Errorf("urged: rested for %s, asked %d", d, why)
		}
		wake(poke)
		time.AfterFunc(breath/5, func() { wake(urge) })
		if d, why := rested(); d != breath/5 || why != urged {
			t.Errorf("poked and then urged: rested for %s, asked %d", d, why)
		}
		if d, why := rested(); d != time.Minute || why != inTime {
			t.Errorf("left alone: rested for %s, asked %d", d, why)
		}
	})
}
