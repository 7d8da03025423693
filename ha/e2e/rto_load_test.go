package e2e

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// open is how long a transaction of Load.Blocks stays open before its COMMIT.
const open = 100 * time.Millisecond

// block inserts rows, each in a transaction that stays open for a while.
func (w *Workload) block(ctx context.Context) {
	var conn *pgx.Conn
	defer func() { w.ends.hangUp(conn) }()
	for ctx.Err() == nil {
		if conn == nil {
			if conn = w.connect(ctx, "cache_statement"); conn == nil {
				return
			}
		}
		if w.transact(conn); conn.IsClosed() {
			w.lost.busy.Add(1)
			w.ends.hangUp(conn)
			conn = nil
		}
		pause(ctx, w.load.Pause)
	}
}

// transact is one transaction. It does not end with the workload: what was asked is answered.
func (w *Workload) transact(conn *pgx.Conn) {
	a := attempt{ID: w.ids.Add(1), Began: time.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a.Err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		const insert = "INSERT INTO workload (id) VALUES ($1) RETURNING host(inet_server_addr())"
		if err := tx.QueryRow(ctx, insert, a.ID).Scan(&a.Server); err != nil {
			return err
		}
		pause(ctx, open)
		return nil
	})
	a.Done = time.Now()
	w.ledger.note(a)
}
