# Ends a standby's WAL receiver. Only for one that was told to leave its upstream and whose startup
# process is too busy to notice: what it ends does not come back.
for pid in $(servers "$pgdata"); do
	case $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) in
	*walreceiver* | *"wal receiver"*) kill -s TERM "$pid" ;;
	esac
done
