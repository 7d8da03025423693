package balancer

import (
	"errors"
	"fmt"
	"time"
)

// Consistency says which writes a read must see.
type Consistency int

const (
	AsConfigured Consistency = iota // in a Need: what Config says; in a Config: Session
	Session                         // the session's own
	Cluster                         // those of all sessions of this member
	Eventual                        // none for certain; lag limits still hold
)

var consistencyNames = [...]string{"session", "cluster", "eventual"}

func (c Consistency) String() string { return name(consistencyNames[:], int(c)-1) }

// MarshalText and UnmarshalText are the notation of the configuration.
func (c Consistency) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads "session", "cluster" or "eventual".
func (c *Consistency) UnmarshalText(text []byte) error {
	i, err := parse(consistencyNames[:], string(text))
	if err == nil {
		*c = Consistency(i + 1)
	}
	return err
}

// PrimaryReads says when reads may go to the primary although no doubt sends them there.
type PrimaryReads int

const (
	LastResort PrimaryReads = iota // when no standby takes reads
	Never                          // they fail instead; reads that need their own write still go there
	Always                         // it takes its turn, by its weight
)

var primaryReadsNames = [...]string{"last_resort", "never", "always"}

func (p PrimaryReads) String() string { return name(primaryReadsNames[:], int(p)) }

// MarshalText is the notation of the configuration.
func (p PrimaryReads) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads "last_resort", "never" or "always".
func (p *PrimaryReads) UnmarshalText(text []byte) error {
	i, err := parse(primaryReadsNames[:], string(text))
	if err == nil {
		*p = PrimaryReads(i)
	}
	return err
}

func name(names []string, i int) string {
	if i < 0 || i >= len(names) {
		return names[0]
	}
	return names[i]
}

func parse(names []string, text string) (int, error) {
	for i, n := range names {
		if n == text {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%q is none of %q", text, names)
}

// Config is the section [balancer].
type Config struct {
	// PrimaryReads is "never", "last_resort" or "always".
	PrimaryReads PrimaryReads `toml:"primary_reads"`
	// ReadConsistency is "session", "cluster" or "eventual".
	ReadConsistency Consistency `toml:"read_consistency"`
	// ConsistencyWait is how long a read waits for a standby that has replayed the write that it
	// must see, before it goes to the primary. 0 asks the primary at once: it has the answer
	// already, so waiting only pays where the primary must be spared.
	ConsistencyWait time.Duration `toml:"consistency_wait"`
	// Ban is how long a node gets no reads after a connection to it failed; each further failure
	// without a success between doubles it, up to BanMax. The agent's probes take a dead node out
	// on their own; the ban covers the time until they notice, and what they cannot see.
	Ban    time.Duration `toml:"ban"`
	BanMax time.Duration `toml:"ban_max"`
}

// DefaultConfig reads from standbys while there is one, and sees its own writes.
func DefaultConfig() Config {
	return Config{ReadConsistency: Session, Ban: 250 * time.Millisecond, BanMax: 10 * time.Second}
}

// Validate returns every problem, joined.
func (c Config) Validate() error {
	var problems []error
	if c.Ban <= 0 || c.BanMax < c.Ban {
		problems = append(problems, fmt.Errorf("balancer: ban is %s and ban_max %s; want 0 < ban <= ban_max", c.Ban, c.BanMax))
	}
	if c.ConsistencyWait < 0 {
		problems = append(problems, fmt.Errorf("balancer: consistency_wait is negative"))
	}
	return errors.Join(problems...)
}
