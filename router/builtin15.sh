#!/bin/sh
# Writes builtin15.txt from a PostgreSQL 15 server (PGHOST, PGUSER … as for psql): the functions of
# pg_catalog that SQL can call, and the system views that show one node. Which views those are is
# what the classifier says of their definitions: TestTheBuiltInViewsAreThoseOfTheServer prints them.
set -e
psql -AtXF' ' -c "
SELECT proname, CASE WHEN bool_or(provolatile = 'v') THEN 'v' ELSE '' END
    || CASE WHEN bool_or(pronargs >= 1 AND pronargs - pronargdefaults <= 1) THEN '1' ELSE '' END
FROM pg_catalog.pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind IN ('f', 'a', 'w')
  AND NOT 'internal'::regtype = ANY (proargtypes)
  AND prorettype NOT IN ('internal'::regtype, 'trigger'::regtype, 'event_trigger'::regtype)
GROUP BY proname ORDER BY proname COLLATE \"C\"" > functions.tmp
grep ' local$' builtin15.txt > views.tmp || true
cat functions.tmp views.tmp > builtin15.txt
rm functions.tmp views.tmp
