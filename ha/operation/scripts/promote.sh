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
	fail 45 "marked '$marker': too late to promote for $epoch"
fi
"$bin/pg_ctl" promote -D "$pgdata" -W >&2
