# What is done to a virtual address on a node's host, over SSH. Needs iproute2 4.14; to tell the
# segment, iputils' arping (IPv4) or python3. Not root: sudo -n.
#   list                         what the host has, as JSON
#   take PREFIX DEV PROGRAM      put it on and announce it; PROGRAM is announce.py's text
#   announce ADDRESS DEV PROGRAM
#   drop ADDRESS                 off every interface
# Each can be repeated. Exit code 3: the address is there, but this host cannot announce it.
set -u
PATH=$PATH:/usr/sbin:/sbin
export PATH LC_ALL=C
as_root=
rights=
[ "$(id -u)" = 0 ] || {
	as_root='sudo -n'
	rights=" ($(id -un) needs sudo without a password for ip, arping and python3, or log in as root)"
}

fail() { # CODE TEXT
	echo "$2" >&2
	exit "$1"
}

command -v ip >/dev/null || fail 1 "this host has no ip command: install iproute2"

has() { # ADDRESS DEV
	[ -n "$(ip -o addr show dev "$2" to "$1")" ]
}

put() { # PREFIX DEV
	case $1 in
	*:*) $as_root ip -6 addr add "$1" dev "$2" nodad preferred_lft 0 ;;
	*) $as_root ip addr add "$1" dev "$2" ;;
	esac
}

# Three times both forms within half a second; each arping waits a second for answers of nobody.
announce() { # ADDRESS DEV PROGRAM
	case $1 in
	*:*) ;;
	*)
		case $(arping -V 2>&1) in
		*iputils*)
			for pause in 0.2 0.3 0; do
				$as_root arping -q -U -c 1 -I "$2" "$1" &
				unsolicited=$!
				$as_root arping -q -A -c 1 -I "$2" "$1" &
				sleep $pause
			done
			# -U ends in 0 when it could send; nobody answers it.
			wait $unsolicited && wait && return 0
			;;
		esac
		;;
	esac
	command -v python3 >/dev/null && $as_root python3 -c "$3" "$1" "$2" && return 0
	fail 3 "this host has no tool that can announce $1 on $2: install iputils-arping or python3"
}

# Takes it off every interface, whatever the length of its prefix there.
drop() { # ADDRESS
	held=$(ip -o addr show to "$1") || fail 1 "cannot list the addresses"
	printf '%s\n' "$held" | while read -r _ dev _ prefix _; do
		[ -z "${prefix:-}" ] || $as_root ip addr del "$prefix" dev "${dev%@*}"
	done
	# Whoever took it off: it has to be gone.
	[ -z "$(ip -o addr show to "$1")" ] || fail 1 "cannot take $1 off$rights"
}

verb=$1
shift
case $verb in
list)
	exec ip -j addr show
	;;
take)
	address=${1%/*}
	if ! has "$address" "$2"; then
		drop "$address" # it may be on another interface
		put "$1" "$2" || has "$address" "$2" || fail 1 "cannot put $1 on $2$rights"
	fi
	announce "$address" "$2" "$3"
	;;
announce)
	has "$1" "$2" || fail 1 "$1 is not on $2"
	announce "$1" "$2" "$3"
	;;
drop)
	drop "$1"
	;;
*)
	fail 2 "unknown: $verb"
	;;
esac
