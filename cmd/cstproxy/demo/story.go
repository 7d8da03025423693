package demo

import (
	"context"
	"time"
)

// story kills a standby and starts it again, over and over, one after the other.
func (d *Demo) story(ctx context.Context) {
	standbys := d.cluster.Standbys()
	for i := 0; ; i++ {
		s := standbys[i%len(standbys)]
		if !rest(ctx, 20*time.Second) {
			return
		}
		before, _, _ := d.load.now()
		s.Kill()
		d.events.add("%s was killed (SIGKILL): its reads go to the others", s.Name)
		if !rest(ctx, 15*time.Second) {
			return
		}
		if err := s.Start(ctx); err != nil {
			if ctx.Err() == nil {
				d.events.add("%s could not be started again: %v", s.Name, err)
			}
			return
		}
		d.events.add("%s was started again", s.Name)
		if err := d.proxy.AwaitBackends(ctx, len(standbys)); err != nil {
			if ctx.Err() == nil {
				d.events.add("%s did not return into rotation: %v", s.Name, err)
			}
			return
		}
		after, _, _ := d.load.now()
		d.events.add("%s takes reads again; queries that failed meanwhile: %d", s.Name, after.Errors-before.Errors)
	}
}
