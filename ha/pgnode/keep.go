package pgnode

import (
	"context"
	"regexp"
	"strings"
)

// KeepConninfo is what a standby before version 13 streams by, kept in SavedConninfo as Recruit does from
// 13 on: its host is to write it anew. Where there is none any more it is what was kept; nil when nothing
// is known. Never log it.
func (s *Server) KeepConninfo(ctx context.Context) (Conninfo, error) {
	c, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close(ctx)
	facts, err := c.Facts(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.hush(ctx, facts.Version); err != nil {
		return nil, err
	}
	if facts.Version < 120000 {
		facts.Conninfo = c.recoveryConninfo(ctx)
	}
	if facts.Conninfo == nil {
		return c.savedConninfo(ctx), nil
	}
	return facts.Conninfo, c.keepConninfo(ctx, facts)
}

// recoveryConninfo is the primary_conninfo of recovery.conf; nil when there is none to be read.
func (c *Conn) recoveryConninfo(ctx context.Context) Conninfo {
	row, err := c.one(ctx, "SELECT pg_read_file('recovery.conf', 0, 100000, true)", 1)
	if err != nil {
		return nil
	}
	found, err := ParseConninfo(recoverySetting(string(row[0])))
	if err != nil {
		return nil
	}
	return found
}

var recoveryLine = regexp.MustCompile(`(?mi)^[ \t]*primary_conninfo[ \t]*=?[ \t]*'((?:[^'\\\n]|''|\\.)*)'`)

// recoverySetting is the value of primary_conninfo in the text of a recovery.conf: the last one counts.
func recoverySetting(text string) string {
	found := recoveryLine.FindAllStringSubmatch(text, -1)
	if len(found) == 0 {
		return ""
	}
	return strings.NewReplacer(`''`, `'`, `\\`, `\`, `\'`, `'`).Replace(found[len(found)-1][1])
}
