package pgnode

import (
	"context"
	"fmt"
)

// SlotLimit is max_slot_wal_keep_size in bytes: how much log a slot can hold back. Negative: no limit, as
// before version 13.
func (c *Conn) SlotLimit(ctx context.Context) (int64, error) {
	row, err := c.one(ctx, "SELECT coalesce((SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), -1)", 1)
	if err != nil {
		return 0, fmt.Errorf("ask for max_slot_wal_keep_size: %w", err)
	}
	f := fields{row: row}
	megabytes := f.int64()
	return megabytes << 20, f.err
}
