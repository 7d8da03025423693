# Starts a stopped server: as what its directory says, or, with role=primary, as a primary.
programs pg_ctl pg_controldata
unfinished
if [ "$role" = primary ]; then
	signal=$(signals)
	case $(control "$pgdata" 'Database cluster state') in
	'in archive recovery' | 'shut down in recovery') [ ! -e "$signal" ] || fail 45 "$pgdata was a standby when it stopped: that is a promotion, not a restart" ;;
	esac
	rm -f "$signal"
	sync "$pgdata"
fi
start_server
