# Ends the server, and leaves the directory so that whoever starts it gets a standby.
if [ ! -f "$pgdata/PG_VERSION" ]; then
	say "no database in $pgdata: nothing to stop"
	exit 0
fi
programs pg_ctl
had=no
signal=$(signals)
if [ -e "$signal" ]; then had=yes; fi
# A full disk must not keep a server from being stopped.
standby "$pgdata" || left="$signal could not be written: the server would start as a primary"
if ! (stop_server "$pgdata" "$mode" "$patience"); then
	# It goes on as what it is, and so must its directory.
	if [ "$had" = no ]; then rm -f "$signal"; fi
	fail 42 "the server on $pgdata does not end: processes" $(servers "$pgdata")
fi
[ -z "${left:-}" ] || fail 44 "$left"
