# Brings a directory that went another way back onto its source's branch. Dies harmlessly: each
# phase ends with a rename, and a repeat goes on from there, except when pg_rewind was interrupted.
programs pg_ctl pg_rewind pg_controldata postgres
read_secrets
if ended; then
	settings= # they are there, unless a later operation has others
	start_server standby
	exit 0
fi
[ ! -d "$rewinding" ] || fail 43 "$rewinding: a rewind was interrupted, only a new copy helps"

if [ ! -d "$recovering" ] && [ ! -d "$rewound" ]; then
	standby_settings=$settings settings=
	standby "$pgdata" # until it bears its other name, a start gives a standby
	settings=$standby_settings
	(stop_server "$pgdata" fast "$patience") || stop_server "$pgdata" immediate 5
	rename "$pgdata" "$recovering"
fi

give_up() { # WORD...: nothing was changed, so it may have its name back, as a standby
	settings=
	standby "$recovering"
	rename "$recovering" "$pgdata"
	fail 47 "$@"
}

# holding POSITION BYTES is the segment that holds what is so many bytes behind a position.
holding() {
	number=$(((0x${1%/*} * 4294967296 + 0x${1#*/} + $2) / segment))
	each=$((4294967296 / segment))
	printf '%08X%08X%08X' "$timeline" $((number / each)) $((number % each))
}

# lost_log copies the log that the directory has and the source's branch does not. FORKS are
# "timeline:position" of the source's history, oldest first.
lost_log() {
	timeline=$(control "$recovering" "Latest checkpoint's TimeLineID")
	# A promotion after that is told here, until the next checkpoint.
	reached=$(control "$recovering" "Min recovery ending loc's timeline")
	if [ "${reached:-0}" -gt "$timeline" ]; then timeline=$reached; fi
	state=$(control "$recovering" 'Database cluster state')
	# Equal numbers may be two branches, unless this one was never written by a primary.
	if [ "$timeline" = "$source_timeline" ] && [ "$state" = 'shut down in recovery' ]; then return 0; fi
	segment=$(control "$recovering" 'Bytes per WAL segment')
	first=$(printf '%08X' "$timeline")
	for fork in $forks; do
		[ "${fork%%:*}" = "$timeline" ] || continue
		first=$(holding "${fork#*:}" 0)
	done
	# A primary that was shut down ends with its checkpoint; the segments behind that are for later use.
	last='~'
	if [ "$state" = 'shut down' ]; then last=$(holding "$(control "$recovering" 'Latest checkpoint location')" 1024)~; fi
	saved=$(dirname "$pgdata")/cstproxy-lost/$(stamp)-tl$timeline
	mkdir -p "$saved.part"
	ls "$recovering/pg_wal" | awk -v first="$first" -v last="$last" -v of="$(printf '%08X' "$timeline")" \
		'substr($0, 1, 8) "" == of "" && $0 "" >= first "" && $0 "" <= last "" && $0 !~ /ready|done/' | while read -r file; do
		cp -p "$recovering/pg_wal/$file" "$saved.part/"
	done
	sync -f "$saved.part"
	rename "$saved.part" "$saved"
	say "log that the new primary does not have was saved in $saved"
}

if [ -d "$recovering" ]; then
	rm -rf "$kept"
	own_files "$recovering" "$kept"
	rm -f "$recovering/postmaster.pid"
	case $(control "$recovering" 'Database cluster state') in
	'shut down' | 'shut down in recovery') ;;
	*)
		say "recovering $pgdata first: it was not shut down cleanly"
		rm -f "$recovering/standby.signal" "$recovering/recovery.signal" "$recovering/recovery.conf"
		set -- -c "config_file=$recovering/postgresql.conf"
		if [ ! -f "$recovering/postgresql.conf" ]; then
			set -- -c "config_file=$(sed -n 's/.*"config_file=\([^"]*\)".*/\1/p' "$recovering/postmaster.opts")"
		fi
		"$bin/postgres" --single -F -D "$recovering" "$@" -c "data_directory=$recovering" template1 </dev/null >&2 ||
			give_up "$pgdata cannot be recovered to a clean end"
		;;
	esac
	demoted && give_up "the source is no primary any more"
	lost_log
	set -- --target-pgdata="$recovering" --source-server="$source"
	if [ "$major" -ge 13 ]; then set -- "$@" --no-ensure-shutdown; fi
	"$bin/pg_rewind" "$@" --dry-run >&2 || give_up "pg_rewind cannot bring $pgdata back"
	rename "$recovering" "$rewinding"
	set -- --target-pgdata="$rewinding" --source-server="$source" --progress
	if [ "$major" -ge 13 ]; then set -- "$@" --no-ensure-shutdown; fi
	"$bin/pg_rewind" "$@" >&2 || fail 43 "pg_rewind failed in the middle, only a new copy helps"
	rename "$rewinding" "$rewound"
fi

if [ -d "$kept" ]; then cp -RpP "$kept/." "$rewound/"; fi
rm -f "$rewound/postmaster.pid"
standby "$rewound"
end "$rewound"
rename "$rewound" "$pgdata"
rm -rf "$kept"
start_server
