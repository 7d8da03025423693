# Prints what can be known of a data directory without its server, as name=value lines.
where=$pgdata
# A rebuild that was interrupted when the old directory was out of the way already.
if [ ! -f "$pgdata/PG_VERSION" ]; then
	if [ -d "$kept" ] || [ -d "$copying" ]; then unfinished=copying; fi
	if [ -d "$copied" ]; then where=$copied unfinished=copied; fi
fi
for dir in "$recovering" "$rewinding" "$rewound"; do
	if [ -d "$dir" ]; then where=$dir unfinished=${dir##*-}; fi
done
echo "unfinished=${unfinished:-}"
space=$where
while [ ! -d "$space" ]; do space=$(dirname "$space"); done
if [ -d "$where/pg_wal" ]; then space=$where/pg_wal; fi
echo "free_kb=$(df -Pk "$space" | awk 'NR == 2 { print $4 }')"
if [ ! -f "$where/PG_VERSION" ]; then
	echo exists=no
	exit 0
fi
echo exists=yes
version
echo "major=$major"
set -- $(servers "$where")
echo "processes=$#"
if [ -e "$where/standby.signal" ] || [ -e "$where/recovery.conf" ]; then echo standby=yes; else echo standby=no; fi
if [ -e "$where/backup_label" ]; then echo backup_label=yes; fi
sed -n "s/^cstproxy\.epoch = '\(.*\)'\$/marker=\1/p" "$where/postgresql.auto.conf" 2>/dev/null | tail -n 1
if said=$( (programs pg_ctl pg_controldata pg_rewind pg_basebackup postgres && echo "$bin") 2>&1); then
	bin=$(printf '%s\n' "$said" | tail -n 1) # a loader's warning may come before it
else
	echo "problem=$said"
	programs pg_controldata
fi
echo "bindir=$bin"
control=$("$bin/pg_controldata" -D "$where")
timeline=$(printf '%s\n' "$control" | sed -n "s/^Latest checkpoint's TimeLineID: *//p")
sed 's/^/history=/' "$where/pg_wal/$(printf '%08X' "$timeline").history" 2>/dev/null || :
printf '%s\n' "$control" | sed -n '
s/^Database system identifier: */system=/p
s/^Database cluster state: */state=/p
s/^Latest checkpoint'"'"'s TimeLineID: */timeline=/p
s/^Latest checkpoint location: */checkpoint=/p
s/^Minimum recovery ending location: */needs=/p'
