# Promotes a running standby, unless its marker tells of something later.
programs pg_ctl pg_controldata
case $(control "$pgdata" 'Database cluster state') in
'in production') exit 0 ;;
esac
marker=$(sed -n "s/^cstproxy\.epoch = '\(.*\)'\$/\1/p" "$pgdata/postgresql.auto.conf" | tail -n 1)
seen=${marker%% *}
case $seen in
*[!0-9]*) fail 45 "the marker '$marker' is not ours" ;;
esac
if [ "${seen:-0}" -gt "$epoch" ] || [ "$marker" = "$epoch released" ]; then
	fail 50 "marked '$marker': too late to promote for $epoch"
fi
# PostgreSQL takes the first timeline for which it finds no history file. Numbers that may have been
# used elsewhere get one, of a comment alone; it stays, because standbys ask for all files in between.
number=$from
while [ $((number += 1)) -lt "$timeline" ]; do
	file=$pgdata/pg_wal/$(printf '%08X' "$number").history
	if [ -e "$file" ]; then continue; fi
	echo '# passed over by cstproxy: this number may have been used on another server' >"$file.new"
	sync "$file.new"
	mv -n "$file.new" "$file"
done
sync "$pgdata/pg_wal"
"$bin/pg_ctl" promote -D "$pgdata" -W >&2
