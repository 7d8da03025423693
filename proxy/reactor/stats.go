package reactor

// Stats counts what a loop has done since its birth.
type Stats struct {
	Cycles       uint64 // times round the loop
	Events       uint64 // events that epoll brought
	Reads        uint64 // read calls
	Writes       uint64 // write and writev calls
	BytesRead    uint64 // from the kernel, so encrypted where TLS is in use
	BytesWritten uint64 // to the kernel
	Accepted     uint64 // connections
	AcceptPauses uint64 // rests for want of descriptors or memory
	Adopted      uint64 // connections dialled elsewhere and taken over
	Closed       uint64 // connections
	Handshakes   uint64 // TLS handshakes completed on the server side
	Panics       uint64 // recovered from handlers
}

// Stats returns the counters as of the loop's last cycle. It may be called from any goroutine.
func (l *Loop) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}
