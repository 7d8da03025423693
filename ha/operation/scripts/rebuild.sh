# Makes a new copy of the source beside the directory, and then takes its place. The old directory is
# renamed, never removed, unless mode=replace says so; mode=clone refuses where there is one. Dies
# harmlessly: a repeat throws an unfinished copy away and goes on with a finished one.
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

if [ ! -d "$copied" ]; then
	if demoted; then fail 51 "the source is no primary any more: nothing is copied from it"; fi
	rm -rf "$copying"
	if [ "$mode" = replace ]; then out_of_the_way; fi
	free=$(df -Pk "$(dirname "$pgdata")" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge "$need_kb" ] || fail 44 "a copy needs $need_kb KB beside $pgdata and $free KB are free"
	"$bin/pg_basebackup" -D "$copying" -X stream -c fast -P -v -d "$source" >&2
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
