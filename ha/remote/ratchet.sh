#!/bin/sh
# The ratchet of cstproxy. It runs a command on this host for the leader of a fleet, unless a newer
# decision has been here. Needs a POSIX sh, coreutils, flock and setsid (util-linux), and /proc.
#
#   ratchet VERSION do NONCE KEY EPOCH STEP WAIT LIMIT SIZE FLEET CLUSTER PGDATA COMMAND [ARGUMENT...]
#   ratchet VERSION seen
#
# state/KEY/seen     the highest (epoch, step) that was here, and for whom: durable before anything runs
# state/KEY/running  the process group that runs now: boot id, pid, start time, epoch, step
# state/KEY/lock     held while seen is read, raised and compared, up to the moment the command begins
# state/KEY/run      held while the command runs
#
# Whoever holds lock and finds nothing higher in seen may begin, and a command writes itself into
# running before it lets go of lock. So who has raised seen finds in running whatever of a lower
# token still runs, and nothing lower begins any more. docs/decisions/2026-11-21-ratchet.md goes
# through what happens when this script, the host, the disk or the caller dies at each line.
#
# WAIT and LIMIT are seconds: for another command to end, and for this one from its arrival on (0: no
# limit). SIZE is the length of the input, which comes in base64.
#
# What the script itself has to say is the last line on standard error, marked with NONCE.
set -u
version=@VERSION@
home=$(cd "${0%/*}" && pwd) || exit 2

say() { printf '\n%s %s\n' "$nonce" "$*" >&2; }

leave() { # CODE WORD...
	code=$1
	shift
	say "$@"
	exit "$code"
}

broken() { leave 212 broken "$@"; }

number() { # succeeds for a decimal number that the shell can compare
	case $1 in
	'' | *[!0-9]*) return 1 ;;
	esac
	[ ${#1} -le 18 ]
}

newer() { # EPOCH STEP THAN-EPOCH THAN-STEP
	[ "$1" -gt "$3" ] || { [ "$1" -eq "$3" ] && [ "$2" -gt "$4" ]; }
}

# read_seen sets e and s to what has been here, 0 0 when nothing has.
read_seen() {
	e=0 s=0
	[ -e "$dir/seen" ] || return 0
	{ read -r word format e s rest <"$dir/seen"; } 2>/dev/null || broken "cannot read $dir/seen"
	[ "$word $format$rest" = 'ratchet 1' ] && number "$e" && number "$s" || broken "$dir/seen is not a ratchet's"
}

refuse_older() {
	read_seen
	newer "$e" "$s" "$epoch" "$step" && leave 210 refused "$e" "$s"
	return 0
}

# raise makes (epoch, step) the highest. Read back before the rename: a full disk must not leave
# half a number behind.
raise() {
	text="ratchet 1 $epoch $step
$fleet
$cluster
$pgdata"
	printf '%s\n' "$text" 2>/dev/null >"$dir/seen.new" &&
		[ "$(cat "$dir/seen.new")" = "$text" ] &&
		sync "$dir/seen.new" &&
		mv -f "$dir/seen.new" "$dir/seen" ||
		broken "cannot keep epoch $epoch step $step in $dir"
}

# look PID sets state, group and began of a process.
look() {
	{ read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
	set -- ${stat##*) }
	state=$1 group=$3
	shift 19
	began=$1
}

dead() { [ "$state" = Z ] || [ "$state" = X ]; }

# alive GROUP START EPOCH STEP: does a process of that command live? A pid is not given out again
# while a process group bears it: a leader with another start time means that the group is gone.
# Without a leader, the mark in the environment tells orphans of ours from a stranger's; what must not be
# read counts as ours.
alive() {
	if look "$1" && ! dead; then
		[ "$began" = "$2" ]
		return
	fi
	for process in /proc/[0-9]*; do
		look "${process#/proc/}" && [ "$group" = "$1" ] && ! dead || continue
		environment=$(tr '\0' '\n' 2>/dev/null <"$process/environ") || return 0
		case "
$environment
" in
		*"
CSTPROXY_RATCHET=$key.$3.$4.$1.$2
"*) return 0 ;;
		esac
	done
	return 1
}

# await TICKS GROUP START EPOCH STEP: succeeds when the command is gone before; a tick is 0.05 s.
await() {
	left=$1
	shift
	while alive "$@"; do
		[ "$left" -gt 0 ] || return 1
		left=$((left - 1))
		sleep 0.05
	done
}

# end BOOT GROUP START EPOCH STEP: succeeds when nothing of that command is left.
end() {
	[ "$1" = "$boot" ] || return 0
	shift
	alive "$@" || return 0
	kill -s TERM -- "-$1" 2>/dev/null
	kill -s CONT -- "-$1" 2>/dev/null
	await 40 "$@" && return 0
	kill -s KILL -- "-$1" 2>/dev/null
	await 60 "$@"
}

# end_older ends what runs under a lower token. It needs seen raised, but no lock.
end_older() {
	record=$(cat "$dir/running" 2>/dev/null) || return 0
	set -- $record
	[ $# -eq 5 ] && newer "$epoch" "$step" "$4" "$5" || return 0
	end "$@" || leave 213 busy "process group $2 of epoch $4 step $5 does not end"
}

# settle deals with a command whose script was killed under it: run is free, yet it may live.
settle() {
	refuse_older
	record=$(cat "$dir/running" 2>/dev/null) || return 0
	set -- $record
	if [ $# -eq 5 ] && [ "$1" = "$boot" ]; then
		newer "$epoch" "$step" "$4" "$5" && end_older
		await $((wait * 20)) "$2" "$3" "$4" "$5" ||
			leave 213 busy "process group $2 of epoch $4 step $5 still runs"
	fi
	rm -f "$dir/running"
}

# begin is the command's own process, leader of its group, up to the exec. It holds lock.
begin='
read -r stat <"/proc/$$/stat"
mask=$1 limit=$2 boot=$3 dir=$4 key=$5 epoch=$6 step=$7
shift 7
began() { shift 19; echo "$1"; }
start=$(began ${stat##*) })
printf "%s %s %s %s %s\n" "$boot" $$ "$start" "$epoch" "$step" 2>/dev/null >"$dir/running.new" &&
	mv -f "$dir/running.new" "$dir/running" || exit 1
CSTPROXY_RATCHET=$key.$epoch.$step.$$.$start
export CSTPROXY_RATCHET
flock -u 9
exec 8<&- 9<&-
umask "$mask"
cd /
if [ "$limit" -gt 0 ]; then exec timeout -k 2 "$limit" "$@"; fi
exec "$@"
'

# relay passes one stream on for as long as somebody reads it, and swallows the rest: the command
# must neither die of a caller that went away nor keep the caller waiting for a daemon's output.
relay() {
	trap '' PIPE
	exec tee /dev/null 2>/dev/null 3>&- 4<&- 5>&- 6<&- 8<&- 9<&-
}

# uptime sets now to the seconds since the host's start: no change of the date moves it.
uptime() {
	read -r now rest </proc/uptime
	now=${now%%.*}
}

# take_waiting_off leaves of limit what is left for the command itself: one that waited for longer
# than its caller does not run at all.
take_waiting_off() {
	[ "$limit" -gt 0 ] || return 0
	uptime
	limit=$((limit - (now - arrived)))
	[ "$limit" -gt 0 ] || leave 213 busy "the command's time was over before its turn came"
}

# channel makes the pipe that descriptors 7 (both ends) are opened on.
channel() {
	rm -f "$dir/pipe"
	mkfifo "$dir/pipe" && exec 7<>"$dir/pipe"
}

# run_command runs it and sets code. lock is held when it is called and free when the command runs.
run_command() {
	channel && exec 6<"$dir/pipe" 5>"$dir/pipe" || broken "cannot make a pipe in $dir"
	relay 7>&- <&6 &
	relays=$!
	channel && exec 4<"$dir/pipe" 3>"$dir/pipe" || broken "cannot make a pipe in $dir"
	relay 7>&- <&4 >&2 &
	relays="$relays $!"
	rm -f "$dir/pipe"
	printf '%s' "$body" | base64 -d |
		setsid sh -c "$begin" ratchet "$mask" "$limit" "$boot" "$dir" "$key" "$epoch" "$step" "$@" \
			>&5 2>&3 3>&- 4<&- 5>&- 6<&- 7>&-
	code=$?
	flock -u 9
	exec 3>&- 4<&- 5>&- 6<&- 7>&-
	(sleep 1 && kill $relays) </dev/null >/dev/null 2>&1 8<&- 9<&- &
	late=$!
	wait $relays 2>/dev/null
	kill $late 2>/dev/null
}

do_command() {
	# Not one byte of the input may be missing: half a script is another script.
	body=$(cat)
	[ ${#body} -eq "$size" ] || leave 215 cut
	mkdir -p "$dir" && touch "$dir/lock" "$dir/run" || broken "cannot write in $dir"
	exec 9<"$dir/lock" 8<"$dir/run"

	flock -w "$wait" 9 || leave 213 busy "$dir/lock is held"
	refuse_older
	newer "$epoch" "$step" "$e" "$s" && raise
	# Also when it was there already: who renamed it may have died before this line.
	sync "$dir/seen" "$dir" "$home/state" "$home" || broken "cannot sync $dir"
	flock -u 9
	end_older

	flock -w "$wait" 8 || leave 213 busy "a command of the same token runs"
	settle
	flock -w "$wait" 9 || leave 213 busy "$dir/lock is held"
	refuse_older
	take_waiting_off
	run_command "$@"

	record=$(cat "$dir/running" 2>/dev/null) || broken "cannot write $dir/running"
	# What the command left in its process group ends with it.
	group=${record#* }
	if kill -s 0 -- "-${group%% *}" 2>/dev/null; then
		end $record || leave 213 busy "a process that the command left does not end: $record"
	fi
	rm -f "$dir/running"
	[ "$code" -eq 0 ] || refuse_older # it was ended by a newer decision
	say ran
	exit "$code"
}

[ "${1-}" = "$version" ] || exit 2
case ${2-} in
seen)
	cat "$home"/state/*/seen 2>/dev/null
	exit 0
	;;
do) ;;
*) exit 2 ;;
esac
nonce=$3 key=$4 epoch=$5 step=$6 wait=$7 limit=$8 size=$9
shift 9
fleet=$1 cluster=$2 pgdata=$3
shift 3
dir=$home/state/$key
uptime
arrived=$now mask=$(umask)
umask 077
boot=$(cat /proc/sys/kernel/random/boot_id) || broken "no boot id"
# A handler, not '': what is ignored here would stay ignored in the command.
trap : HUP INT TERM PIPE
do_command "$@"
