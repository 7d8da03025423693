package ha

import (
	"context"
	"fmt"
)

// Order is what an operator said about a server, for the members that he did not say it to. The newest
// word about an address holds.
type Order struct {
	Cluster, Address string
	Word             Word
}

// Word is what an Order says.
type Word string

// The words. Attached, Detached and Draining are about a node that is configured or was added; Added
// and Removed about one that is not configured.
const (
	Attached Word = "attached"
	Detached Word = "detached"
	Draining Word = "draining"
	Added    Word = "added"
	Removed  Word = "removed"
)

func wordOf(o order) Word {
	switch o {
	case orderDetached:
		return Detached
	case orderDraining:
		return Draining
	}
	return Attached
}

// Passed makes the agent call pass with each order that an operator gives here, before the call that
// gave it returns. Passed must be called before Run.
func (a *Agent) Passed(pass func(Order)) { a.passed = pass }

// passOn tells the other members of an order that counts here.
func (a *Agent) passOn(o Order, err error) error {
	if err == nil && o.Word != "" && a.passed != nil {
		a.passed(o)
	}
	return err
}

// Obey takes an order that an operator gave to another member. It may be repeated. Errors as of
// AddBackend.
func (a *Agent) Obey(ctx context.Context, o Order) error {
	var err error
	switch o.Word {
	case Added:
		_, err = a.addBackend(ctx, o.Cluster, o.Address)
	case Removed:
		_, err = a.removeBackend(ctx, o.Cluster, o.Address)
	default:
		err = a.obeyNode(ctx, o)
	}
	return err
}

func (a *Agent) obeyNode(ctx context.Context, o Order) error {
	conf, err := backendAt(o.Address)
	if err != nil {
		return err
	}
	c, err := a.ready(ctx, o.Cluster)
	if err != nil {
		return err
	}
	id := c.find(conf)
	if id == 0 {
		return fmt.Errorf("%w: cluster %q has no node at %s", ErrUnknown, o.Cluster, o.Address)
	}
	for _, known := range []order{orderNone, orderDetached, orderDraining} {
		if wordOf(known) == o.Word {
			_, err := a.order(ctx, o.Cluster, id, known)
			return err
		}
	}
	return fmt.Errorf("%w: an order says %q", ErrRefused, o.Word)
}
