# Starts a stopped server: with role=primary as the primary that it was, otherwise as a standby.
programs pg_ctl pg_controldata
unfinished
if [ "$role" = primary ]; then
	signal=$(signals)
	case $(control "$pgdata" 'Database cluster state') in
	'in archive recovery' | 'shut down in recovery') [ ! -e "$signal" ] || fail 45 "$pgdata was a standby when it stopped: that is a promotion, not a restart" ;;
	esac
	rm -f "$signal"
	sync "$pgdata"
	start_server
else
	start_server standby
fi
