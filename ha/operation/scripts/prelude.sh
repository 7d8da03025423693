# What every script of this folder begins with. It runs as the account that owns the data directory,
# under the ratchet where it changes anything. Arguments are name=value. Secrets come on standard
# input: the first line is a password, the others are lines for postgresql.auto.conf.
set -eu
umask 077
for word; do readonly "$word"; done
LC_ALL=C HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
export LC_ALL HOME
pgdata=$(readlink -f "$directory") # links into it may stay, its parent is where copies go
unset PGDATA PGHOST PGPORT PGUSER PGDATABASE PGSERVICE PGOPTIONS PGPASSWORD

# While a directory cannot be started it bears another name, so that nobody starts it: neither an
# operator nor the host's own boot.
recovering=$pgdata.cstproxy-recovering # pg_rewind has changed nothing yet
rewinding=$pgdata.cstproxy-rewinding   # pg_rewind runs, or was interrupted: no database any more
rewound=$pgdata.cstproxy-rewound       # pg_rewind has ended well
kept=$pgdata.cstproxy-kept             # the node's own configuration, while pg_rewind overwrites it
copying=$pgdata.cstproxy-copying       # pg_basebackup runs, or was interrupted
copied=$pgdata.cstproxy-copied         # pg_basebackup has ended well

say() { printf '%s\n' "$*" >&2; }

fail() { # CODE WORD...
	code=$1
	shift
	say "$*"
	exit "$code"
}

# version sets major, of the directory or else of the server it is to be copied from.
version() {
	major=${source_major:-}
	for dir in "$copied" "$pgdata" "$recovering" "$rewinding" "$rewound"; do
		if [ -f "$dir/PG_VERSION" ]; then major=$(cat "$dir/PG_VERSION"); fi
	done
	case $major in
	'' | *[!0-9]*) fail 41 "no PostgreSQL 10 or later in $pgdata" ;;
	esac
}

# programs NAME... sets bin to the folder that has all of them, the first in the directory's major
# version. A login without a terminal seldom has it on PATH, and what PATH has may be of another version.
programs() {
	version
	searched=
	for bin in "$bindir" "$(pg_config --bindir 2>/dev/null || :)" "/usr/lib/postgresql/$major/bin" \
		"/usr/pgsql-$major/bin" /usr/local/pgsql/bin "$(dirname "$(command -v pg_ctl || :)")"; do
		[ -n "$bin" ] && [ "$bin" != . ] || continue
		searched="$searched $bin"
		missing=
		for program; do [ -x "$bin/$program" ] || missing=yes; done
		if [ -z "$missing" ] && fits "$bin/$1"; then return 0; fi
	done
	fail 41 "$* of PostgreSQL $major not found in:$searched"
}

fits() { # PROGRAM
	said=$("$1" --version) || return 1
	set -- $said
	[ "${3%%[!0-9]*}" = "$major" ]
}

control() { # DIRECTORY FIELD
	"$bin/pg_controldata" -D "$1" | sed -n "s/^$2: *//p"
}

# servers DIRECTORY prints the processes of a server on it, also without a postmaster and whatever
# postmaster.pid says: a server's processes are at home in their data directory. It starts two processes, not
# two for each of the server's: writes are held while a primary is being stopped.
servers() {
	real=$(readlink -f "$1") && [ -d "$real" ] || return 0
	pattern=$(printf '%s' "$real" | sed 's/[][*?\\]/\\&/g')
	set -- $(find /proc/[0-9]*/cwd -maxdepth 0 -lname "$pattern" 2>/dev/null | sed 's/cwd$/exe/')
	[ $# -gt 0 ] || return 0
	find "$@" -maxdepth 0 \( -lname '*/postgres' -o -lname '*/postgres *' \) 2>/dev/null | tr -dc '0-9\n'
}

# hundredths sets now, of seconds since the host's start: no change of the date moves it.
hundredths() {
	read -r now rest </proc/uptime
	now=${now%.*}${now#*.}
}

# gone DIRECTORY SECONDS waits until no process of a server on it is left. A zombie has no directory.
gone() {
	hundredths
	over=$((now + $2 * 100))
	while remaining=$(servers "$1") && [ -n "$remaining" ]; do
		for pid in $remaining; do
			while [ -e "/proc/$pid/cwd" ]; do
				hundredths
				[ "$now" -lt "$over" ] || return 1
				sleep 0.01
			done
		done
	done
}

# stop_server DIRECTORY MODE SECONDS: fast gives up when time is over, immediate kills then. A stopped
# (SIGSTOP) process ends by KILL, too.
stop_server() {
	[ -n "$(servers "$1")" ] || return 0
	# pg_ctl itself would look every 100 ms.
	"$bin/pg_ctl" stop -D "$1" -m "$2" -W >&2 || :
	gone "$1" "$3" && return 0
	if [ "$2" = immediate ]; then
		for pid in $(servers "$1"); do kill -s KILL "$pid" 2>/dev/null || :; done
		gone "$1" 5 && return 0
	fi
	fail 42 "the server on $1 does not end: processes" $(servers "$1")
}

# forget_passed_over takes away the history files of timelines that a promotion was to pass over and that came
# to nothing. Recovery takes the highest number for the newest timeline, and looks for its log for ever.
forget_passed_over() {
	for file in $(ls -r "$pgdata/pg_wal" | grep -E '^[0-9A-F]{8}\.history$' || :); do
		file=$pgdata/pg_wal/$file
		if [ -s "$file" ] && ! head -n 1 "$file" | grep -q '^# passed over by cstproxy'; then return 0; fi
		rm -f "$file"
	done
}

# start_server as it was started before: postmaster.opts has its command line, a configuration file
# elsewhere (Debian) included, and only pg_ctl restart reads it. With the word standby it comes up as one and as
# nothing else: what was lost as a primary, with its host for instance, has nothing in its directory that says
# so. One that runs is left as what it is. Dies before the start: whoever starts it gets a standby. Wakes late, past
# the ratchet, where a primary has crashed: a standby where a primary could go on, never a second primary.
start_server() { # [standby]
	unfinished
	if [ "$(sed -n 's/ *$//;8p' "$pgdata/postmaster.pid" 2>/dev/null)" = stopping ]; then
		gone "$pgdata" "$patience" || fail 42 "the server on $pgdata is being stopped, and does not end"
	fi
	[ -z "$(servers "$pgdata")" ] || return 0
	if [ "${1:-}" = standby ]; then
		standby "$pgdata" || fail 44 "$(signals) could not be written: the server would come up as a primary"
	fi
	forget_passed_over
	rm -f "$pgdata/postmaster.pid" # its process is not there, or is somebody else by now
	how=start
	if [ -s "$pgdata/postmaster.opts" ]; then how=restart; fi
	# Before version 12 pg_ctl leaves the server in its own process group, which ends with the command.
	if [ "$major" -ge 12 ]; then alone=; else alone='setsid --wait'; fi
	# Descriptors that are not ours must not live on in the server.
	$alone "$bin/pg_ctl" "$how" -D "$pgdata" -w -t "$patience" -l "$pgdata/cstproxy-start.log" >&2 </dev/null || {
		tail -n 20 "$pgdata/cstproxy-start.log" >&2
		fail 46 "the server on $pgdata does not start"
	}
}

# unfinished ends the script where a repair has not come to its end.
unfinished() {
	for dir in "$rewinding" "$recovering" "$rewound"; do
		[ ! -d "$dir" ] || fail 43 "$dir: a rewind was interrupted there"
	done
}

# standby DIRECTORY: whoever starts it gets a standby, with the settings of standard input in place of
# those of the same names. What the user wrote elsewhere is not touched. Before version 12 it is
# recovery.conf, whose other lines (restore_command) stay; one that was written for a recovery that ends as a
# primary becomes a standby's. There an empty primary_conninfo would have the receiver connect to libpq's
# default, so it is left out.
standby() {
	if [ -n "${settings:-}" ]; then
		conf=$1/postgresql.auto.conf
		touch "$conf"
		grep -Ev '^[[:space:]]*(primary_conninfo|primary_slot_name|cstproxy\.epoch)[[:space:]]*=' "$conf" >"$conf.new" || :
		if [ "$major" -ge 12 ]; then
			printf '%s\n' "$settings" >>"$conf.new"
		else
			printf '%s\n' "$settings" | grep '^cstproxy' >>"$conf.new" || :
		fi
		sync "$conf.new"
		mv "$conf.new" "$conf"
	fi
	if [ "$major" -ge 12 ]; then
		touch "$1/standby.signal" && sync "$1/standby.signal" "$1"
	elif [ -n "${settings:-}" ] || ! grep -Eiq "^[[:space:]]*standby_mode[[:space:]=]+'?(on|true|yes|1)" "$1/recovery.conf" 2>/dev/null; then
		ours='standby_mode|recovery_target_timeline'
		if [ -n "${settings:-}" ]; then ours="$ours|primary_conninfo|primary_slot_name"; fi
		{
			grep -Eiv "^[[:space:]]*($ours)[[:space:]=]" "$1/recovery.conf" 2>/dev/null || :
			printf '%s\n' "${settings:-}" | grep '^primary' | grep -v " = ''\$" || :
			printf 'standby_mode = on\nrecovery_target_timeline = latest\n'
		} >"$1/recovery.new" && sync "$1/recovery.new" && mv "$1/recovery.new" "$1/recovery.conf" && sync "$1"
	fi
}

# signals is what has the server come up as a standby.
signals() {
	if [ "$major" -ge 12 ]; then echo "$pgdata/standby.signal"; else echo "$pgdata/recovery.conf"; fi
}

# rename FROM TO, durable.
rename() {
	mv -T "$1" "$2" || fail 48 "$1 cannot be renamed: it is a mount point, or its parent is not writable for $(id -un)"
	sync "$(dirname "$2")"
}

# own_files FROM TO copies what belongs to the node and not to the database: configuration and keys
# at the top of the directory, and conf.d.
own_files() {
	rm -rf "$2.part"
	mkdir "$2.part"
	for file in "$1"/*; do
		[ -f "$file" ] || continue
		case ${file##*/} in
		PG_VERSION | postmaster.pid | backup_label* | backup_manifest* | tablespace_map* | current_logfiles | *.signal | recovery.done | *.log | *.new) continue ;;
		esac
		if [ "$(wc -c <"$file")" -le 1048576 ]; then cp -pP "$file" "$2.part/"; fi
	done
	if [ -d "$1/conf.d" ]; then cp -RpP "$1/conf.d" "$2.part/"; fi
	rm -rf "$2"
	rename "$2.part" "$2"
}

# asker is psql, where there is one.
asker() { if [ -x "$bin/psql" ]; then echo "$bin/psql"; else command -v psql; fi; }

# demoted says that the source is a standby: the command was on its way for long, and another primary was
# chosen meanwhile. Without psql nobody can ask.
demoted() {
	ask=$(asker) || return 1
	[ "$(PGCONNECT_TIMEOUT=5 "$ask" -wXAtq -d "$source" -c 'SELECT pg_is_in_recovery()' 2>/dev/null)" = t ]
}

read_secrets() {
	PGPASSWORD=
	IFS= read -r PGPASSWORD || :
	settings=$(cat)
	if [ -n "$PGPASSWORD" ]; then export PGPASSWORD; else unset PGPASSWORD; fi
}

# A repair that came to its end leaves its name in the directory, so that a repeat only looks after the
# server: the answer of the first may have been lost.
ended() { [ "$(cat "$pgdata/cstproxy.repaired" 2>/dev/null)" = "$repair" ]; }

end() { # DIRECTORY
	printf '%s\n' "$repair" >"$1/cstproxy.repaired"
	sync "$1/cstproxy.repaired"
}

stamp() { date -u +%Y%m%dT%H%M%SZ; }
