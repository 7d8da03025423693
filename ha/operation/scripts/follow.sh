# Has a standby follow somebody else by its files: one that is stopped, or, with restart=yes, one
# before version 13, which reads primary_conninfo only at its start.
programs pg_ctl
unfinished
read_secrets
if [ "$restart" = yes ]; then
	[ -e "$pgdata/standby.signal" ] || [ -e "$pgdata/recovery.conf" ] || fail 45 "$pgdata is no standby"
	stop_server "$pgdata" fast "$patience"
fi
[ -z "$(servers "$pgdata")" ] || fail 42 "the server on $pgdata runs"
standby "$pgdata"
start_server
