# Makes a new copy of the source beside the directory, and then takes its place. The old directory is
# renamed, never removed, unless mode=replace says so, and then not before it is shown that a copy can be
# made; mode=clone refuses where there is one. Dies harmlessly: a repeat throws an unfinished copy away and goes
# on with a finished one.
programs pg_ctl pg_basebackup
read_secrets
if ended; then
	settings= # they are there, unless a later operation has others
	start_server standby
	exit 0
fi
old=
for dir in "$pgdata" "$recovering" "$rewinding" "$rewound"; do
	if [ -d "$dir" ] && [ -n "$(ls -A "$dir")" ]; then old=$dir; fi
done
if [ "$mode" = clone ] && [ -n "$old" ] && [ ! -d "$copied" ]; then
	fail 49 "$old is not empty: nothing is cloned over it"
fi

out_of_the_way() {
	[ -n "$old" ] || return 0
	if [ -d "$kept" ]; then :; else own_files "$old" "$kept"; fi
	if [ -f "$old/PG_VERSION" ]; then (stop_server "$old" fast "$patience") || stop_server "$old" immediate 5; fi
	if [ "$mode" = replace ]; then
		rm -rf "$old"
	else
		aside=$pgdata.cstproxy-old-$(stamp)
		rename "$old" "$aside"
		say "the old directory is $aside"
	fi
	old=
}

# room: what is to be removed counts as free.
room() {
	free=$(df -Pk "$(dirname "$pgdata")" | awk 'NR == 2 { print $4 }')
	if [ "$mode" = replace ] && [ -n "$old" ] && [ "$free" -lt "$need_kb" ]; then
		free=$((free + $(du -skx "$old" | cut -f 1)))
	fi
	[ "$free" -ge "$need_kb" ] || fail 44 "a copy needs $need_kb KB beside $pgdata and $free KB are free"
}

# trial has the source begin a copy and reads how that begins, which tells of the source. Nothing is written
# here: the disk may be full. So login, pg_hba.conf, WAL sender, program, and that there are no tablespaces are
# shown; the slot that a copy takes besides is tried by psql, where there is one. Dies anywhere: nothing is left,
# neither here nor there. Without -w pg_basebackup would ask for a password that it was not given, for ever.
trial() {
	begun=$("$bin/pg_basebackup" -w -D - -F tar -X none -c fast -d "$source" | head -c 2048 | tr -d '\000')
	case $begun in
	*'BACKUP FROM: standby'*) fail 51 "the source is a standby: nothing is copied from it, and $old was left as it is" ;;
	*'BACKUP FROM: '*) ;;
	*) fail 52 "the source gives no copy, so $old was left as it is" ;;
	esac
	ask=$(asker) || return 0
	PGCONNECT_TIMEOUT=5 "$ask" -wXAtq -d "$source replication=true" -c "CREATE_REPLICATION_SLOT cstproxy_trial_$$ TEMPORARY PHYSICAL" >/dev/null ||
		fail 52 "the source gives no slot for a copy, so $old was left as it is"
}

if [ ! -d "$copied" ]; then
	if demoted; then fail 51 "the source is no primary any more: nothing is copied from it"; fi
	rm -rf "$copying"
	room
	if [ "$mode" = replace ] && [ -n "$old" ]; then
		trial
		out_of_the_way
	fi
	"$bin/pg_basebackup" -w -D "$copying" -X stream -c fast -P -v -d "$source" >&2
	if grep -q '^BACKUP FROM: standby' "$copying/backup_label"; then
		rm -rf "$copying"
		fail 51 "the source became a standby: its copy was thrown away"
	fi
	rename "$copying" "$copied"
fi

if [ "$mode" != clone ]; then out_of_the_way; fi
if [ -d "$kept" ]; then cp -RpP "$kept/." "$copied/"; fi
standby "$copied"
end "$copied"
if [ -d "$pgdata" ]; then rmdir "$pgdata"; fi
rename "$copied" "$pgdata"
rm -rf "$kept"
start_server
