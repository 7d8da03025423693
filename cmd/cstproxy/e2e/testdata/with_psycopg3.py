"""What psycopg 3 users do, printed line by line. Arguments: a connection string, and one to watch the primary by."""

import hashlib
import sys
import threading
import time

import psycopg
from psycopg import sql


def told(error):
    d = error.diag
    return f"{type(error).__name__} {d.sqlstate} {d.severity} {d.message_primary!r} detail={d.message_detail!r} position={d.statement_position!r}"


def attempt(label, action):
    try:
        print(label, "->", action())
    except psycopg.Error as e:
        print(label, "->", told(e))


def cancel_when_asleep(conn, watch):
    with psycopg.connect(watch, autocommit=True) as other:
        while not other.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchone():
            time.sleep(0.02)
    conn.cancel()


def main(url, watch):
    conn = psycopg.connect(url, autocommit=True)
    conn.add_notice_handler(lambda d: print("notice", d.severity, d.sqlstate, d.message_primary))
    cur = conn.cursor()

    def run(query, *params, **more):
        cur.execute(query, *params, **more)
        return cur.fetchall() if cur.description else cur.statusmessage

    attempt("drop", lambda: run("DROP TABLE IF EXISTS py_item"))
    attempt("create", lambda: run("CREATE TABLE py_item (id int PRIMARY KEY, name text, doc jsonb, n numeric)"))
    attempt("many", lambda: cur.executemany("INSERT INTO py_item (id, name) VALUES (%s, %s)", [(i, f"name {i}") for i in range(200)]))
    attempt("returning", lambda: cur.executemany("INSERT INTO py_item (id) VALUES (%s) RETURNING id", [(1000 + i,) for i in range(3)], returning=True))
    for prepare in (None, True, False):
        for i in range(8):
            attempt(f"prepare={prepare}", lambda: run("SELECT name FROM py_item WHERE id = %s", (i,), prepare=prepare))
    attempt("duplicate", lambda: run("INSERT INTO py_item (id) VALUES (1)"))
    attempt("syntax", lambda: run("SELEC 1"))
    attempt("missing", lambda: run("SELECT * FROM py_missing"))

    # Pipelines, with an error in the middle.
    with conn.pipeline() as p:
        cursors = [conn.execute("SELECT %s::int * 2", (i,)) for i in range(50)]
        p.sync()
        print("pipeline", sum(c.fetchone()[0] for c in cursors))
    try:
        with conn.pipeline() as p:
            conn.execute("INSERT INTO py_item (id) VALUES (2000)")
            conn.execute("SELECT 1 / %s::int", (0,))
            conn.execute("INSERT INTO py_item (id) VALUES (2001)")
    except psycopg.Error as e:
        print("pipeline error", told(e))
    attempt("after it", lambda: run("SELECT count(*) FROM py_item WHERE id >= 2000"))

    # Transactions, nested and read only.
    conn.autocommit = False
    try:
        with conn.transaction():
            conn.execute("INSERT INTO py_item (id) VALUES (3000)")
            try:
                with conn.transaction():
                    conn.execute("INSERT INTO py_item (id) VALUES (3000)")
            except psycopg.Error as e:
                print("nested", told(e))
    except psycopg.Error as e:
        print("outer", told(e))
    conn.read_only = True
    attempt("read only", lambda: run("SELECT count(*) FROM py_item"))
    attempt("write", lambda: run("DELETE FROM py_item"))
    conn.rollback()
    conn.read_only = None
    conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    attempt("serializable", lambda: run("SELECT count(*), current_setting('transaction_isolation') FROM py_item"))
    conn.commit()
    conn.isolation_level = None

    # Server-side cursors, COPY both ways, binary too.
    with conn.cursor(name="some") as some:
        some.execute("SELECT g, md5(g::text) FROM generate_series(1, 10000) g")
        some.itersize = 777
        print("cursor", hashlib.sha256(repr(list(some)).encode()).hexdigest()[:16])
    conn.commit()
    with cur.copy("COPY py_item (id, name) FROM STDIN") as copy:
        for i in range(5000, 10000):
            copy.write_row((i, f"copied {i}"))
    print("copied", cur.rowcount)
    try:
        with cur.copy("COPY py_item (id, name) FROM STDIN") as copy:
            copy.write_row((5000, "again"))
    except psycopg.Error as e:
        print("copy", told(e))
    conn.rollback()
    for form in ("TEXT", "BINARY"):
        h = hashlib.sha256()
        with cur.copy(sql.SQL("COPY (SELECT id, name FROM py_item ORDER BY id) TO STDOUT (FORMAT {})").format(sql.SQL(form))) as copy:
            for data in copy:
                h.update(data)
        print("copy out", form, h.hexdigest()[:16])
    conn.commit()
    conn.autocommit = True

    attempt("binary", lambda: conn.execute("SELECT 1::int8, 'x'::text, ARRAY[1, 2], '{\"a\": 1}'::jsonb", binary=True).fetchone())
    attempt("notice", lambda: run("DO $$ BEGIN RAISE NOTICE 'from a block'; END $$"))
    attempt("several", lambda: run("SELECT 1; SELECT 2"))
    attempt("settings", lambda: run("SET TIME ZONE 'Asia/Tokyo'"))
    attempt("settings", lambda: run("SELECT TIMESTAMPTZ '2024-01-01 00:00Z'::text"))
    print("time zone", conn.info.timezone, "encoding", conn.info.encoding, conn.info.server_version)

    # LISTEN, and cancelling.
    run("LISTEN py_news")
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_notify('py_news', 'payload')")
    for n in conn.notifies():
        print("notified", n.channel, n.payload)
        break
    canceller = threading.Thread(target=cancel_when_asleep, args=(conn, watch), daemon=True)
    canceller.start()
    attempt("cancel", lambda: run("SELECT pg_sleep(30)"))
    canceller.join()
    attempt("alive", lambda: run("SELECT 'alive'"))

    # Two-phase commit.
    xid = conn.xid(1, "gtrid", "bqual")
    conn.autocommit = False
    conn.tpc_begin(xid)
    conn.execute("INSERT INTO py_item (id) VALUES (7777777)")
    conn.tpc_prepare()
    conn.tpc_rollback()
    conn.autocommit = True
    attempt("two-phase", lambda: run("SELECT count(*) FROM py_item WHERE id = 7777777"))
    attempt("drop", lambda: run("DROP TABLE py_item"))
    conn.close()


main(*sys.argv[1:])
