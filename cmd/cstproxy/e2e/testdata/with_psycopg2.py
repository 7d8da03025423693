"""What psycopg2 users do, printed line by line. Arguments: a connection string, and one to watch the primary by."""

import hashlib
import io
import select
import sys
import threading
import time

import psycopg2
import psycopg2.extras
from psycopg2 import extensions


def attempt(label, action):
    try:
        print(label, "->", action())
    except psycopg2.Error as e:
        d = e.diag
        print(label, "->", type(e).__name__, e.pgcode, d.severity, repr(d.message_primary), repr(d.message_detail), d.statement_position)


def cancel_when_asleep(conn, watch):
    other = psycopg2.connect(watch)
    other.autocommit = True
    cur = other.cursor()
    while True:
        cur.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        if cur.fetchone():
            break
        time.sleep(0.02)
    other.close()
    conn.cancel()


def main(url, watch):
    conn = psycopg2.connect(url)
    cur = conn.cursor()

    def run(query, params=None):
        cur.execute(query, params)
        return cur.fetchall() if cur.description else cur.statusmessage

    # As Django opens a connection.
    conn.set_client_encoding("UTF8")
    conn.set_session(autocommit=True)
    attempt("zone", lambda: run("SET TIME ZONE 'UTC'"))
    attempt("drop", lambda: run("DROP TABLE IF EXISTS py2_item"))
    attempt("create", lambda: run("CREATE TABLE py2_item (id serial PRIMARY KEY, name text UNIQUE, data bytea)"))
    psycopg2.extras.execute_values(cur, "INSERT INTO py2_item (name) VALUES %s", [(f"name {i}",) for i in range(1000)])
    print("inserted", cur.rowcount)
    attempt("returning", lambda: run("INSERT INTO py2_item (name, data) VALUES (%s, %s) RETURNING id, data", ("ü ☃", psycopg2.Binary(b"\0\1\xff")))[0][0])
    attempt("duplicate", lambda: run("INSERT INTO py2_item (name) VALUES ('name 1')"))
    attempt("several", lambda: run("SELECT 1; SELECT 2, 3"))
    attempt("empty", lambda: run(""))

    conn.autocommit = False
    attempt("in a transaction", lambda: run("UPDATE py2_item SET name = name || '!' WHERE id <= 10"))
    print("status", conn.get_transaction_status())
    attempt("error", lambda: run("SELECT 1 / 0"))
    print("status", conn.get_transaction_status())
    attempt("aborted", lambda: run("SELECT 1"))
    conn.rollback()
    print("status", conn.get_transaction_status())
    conn.set_session(readonly=True, isolation_level="REPEATABLE READ")
    attempt("read only", lambda: run("SELECT count(*), current_setting('transaction_isolation') FROM py2_item"))
    attempt("write", lambda: run("DELETE FROM py2_item"))
    conn.rollback()
    conn.set_session(readonly=False, isolation_level="DEFAULT")

    with conn.cursor("named") as named:
        named.itersize = 300
        named.execute("SELECT id, name FROM py2_item ORDER BY id")
        print("cursor", hashlib.sha256(repr(list(named)).encode()).hexdigest()[:16])
    conn.commit()
    text = "".join(f"copied {i}\n" for i in range(3000))
    cur.copy_expert("COPY py2_item (name) FROM STDIN", io.StringIO(text))
    print("copied", cur.rowcount)
    conn.commit()
    out = io.BytesIO()
    cur.copy_expert("COPY (SELECT name FROM py2_item ORDER BY id) TO STDOUT", out)
    print("copy out", len(out.getvalue()), hashlib.sha256(out.getvalue()).hexdigest()[:16])
    attempt("bad copy", lambda: cur.copy_expert("COPY py2_item (id) FROM STDIN", io.StringIO("x\n")))
    conn.rollback()

    conn.autocommit = True
    run("DO $$ BEGIN RAISE NOTICE 'noticed'; END $$")
    print("notices", [n for n in conn.notices if "noticed" in n])
    run("LISTEN py2_news")
    run("NOTIFY py2_news, 'hello'")
    while not conn.notifies:
        if select.select([conn], [], [], 20) == ([], [], []):
            print("no notification")
            break
        conn.poll()
    print("notified", [(n.channel, n.payload) for n in conn.notifies])

    canceller = threading.Thread(target=cancel_when_asleep, args=(conn, watch), daemon=True)
    canceller.start()
    attempt("cancel", lambda: run("SELECT pg_sleep(30)"))
    canceller.join()
    attempt("alive", lambda: run("SELECT 'alive'"))
    large = run("SELECT string_agg(md5(g::text), '') FROM generate_series(1, 200000) g")[0][0]
    print("large", len(large), hashlib.sha256(large.encode()).hexdigest()[:16])
    for name in ("server_version", "client_encoding", "TimeZone", "DateStyle", "is_superuser", "session_authorization"):
        print(name, conn.get_parameter_status(name))
    print(conn.encoding, conn.status, extensions.STATUS_READY)
    attempt("drop", lambda: run("DROP TABLE py2_item"))
    conn.close()


main(*sys.argv[1:])
