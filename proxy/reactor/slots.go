package reactor

// Keys of events that are not a connection's: the eventfd, and below it the listeners.
const wakeKey int32 = -1

const slotsPerChunk = 1024

// slots finds the connection that an event is for. Event data is slot + generation, not a descriptor
// and not a pointer: the kernel reuses descriptors at once, and an event may be older than its slot's
// present owner. Such an event finds nothing.
type slots struct {
	chunks [][]slot
	free   []int32
	used   int32
}

type slot struct {
	conn       *Conn
	generation int32
}

func (s *slots) at(i int32) *slot { return &s.chunks[i/slotsPerChunk][i%slotsPerChunk] }

// take finds a place for c, and sets c's slot and generation.
func (s *slots) take(c *Conn) {
	if n := len(s.free); n > 0 {
		c.slot = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		c.slot = s.used
		s.used++
		if int(c.slot)/slotsPerChunk == len(s.chunks) {
			s.chunks = append(s.chunks, make([]slot, slotsPerChunk))
		}
	}
	p := s.at(c.slot)
	p.generation++
	p.conn = c
	c.generation = p.generation
}

// give returns c's place. Events that are still under way for it find nothing from now on.
func (s *slots) give(c *Conn) {
	s.at(c.slot).conn = nil
	s.free = append(s.free, c.slot)
}

// find returns the connection at slot i if it is of this generation and not finished yet.
func (s *slots) find(i, generation int32) *Conn {
	p := s.at(i)
	if p.conn == nil || p.generation != generation || p.conn.phase >= phaseClosing {
		return nil
	}
	return p.conn
}

func (s *slots) each(fn func(*Conn)) {
	for i := range s.used {
		if c := s.at(i).conn; c != nil {
			fn(c)
		}
	}
}
