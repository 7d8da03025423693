# Outlives the test by a moment. Standard input is a pipe whose other end only the test's process
# holds: when that ends, also by SIGKILL, this ends every process of the hosts and removes what has a
# name. Mounts and network namespaces have none, so they end with their processes.
#   $1 the lab's folder, $2 how the paths of its control groups begin
trap '' INT TERM HUP
read -r _
tries=0
while pids=$(cat "$2"*/cgroup.procs 2>/dev/null) && [ -n "$pids" ] && [ $tries -lt 400 ]; do
	# A process that is frozen takes SIGKILL, and dies when it thaws.
	# shellcheck disable=SC2086 # a list of numbers
	kill -KILL $pids 2>/dev/null
	for group in "$2"*; do
		if [ -e "$group/freezer.state" ]; then echo THAWED >"$group/freezer.state"; fi
		if [ -e "$group/cgroup.freeze" ]; then echo 0 >"$group/cgroup.freeze"; fi
	done
	sleep 0.02
	tries=$((tries + 1))
done
for group in "$2"*; do
	if [ -d "$group" ]; then rmdir "$group"; fi
done
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
