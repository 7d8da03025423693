"""A psycopg 3 client that writes numbered rows over one connection until its input ends. Prints each number
that was acknowledged, and at the end how many were repeated. Arguments: a connection string, its name."""

import sys
import threading

import psycopg

INSERT = "INSERT INTO ledger VALUES (%s, %s) ON CONFLICT DO NOTHING"

stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()

conn = psycopg.connect(sys.argv[1], autocommit=True)
number, repeated = 1, 0
while not stop.wait(0.005):
    try:
        if number % 2:
            conn.execute(INSERT, (sys.argv[2], number))
        else:
            with conn.transaction():
                conn.execute(INSERT, (sys.argv[2], number))
    except psycopg.Error as e:
        if conn.broken or e.sqlstate not in ("40001", "08007"):
            sys.exit(f"row {number}: {e.sqlstate} {e}, connection broken: {conn.broken}")
        repeated += 1
        continue
    print(number, flush=True)
    number += 1
print("repeated", repeated, flush=True)
