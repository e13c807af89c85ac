# Puts the old agent back after an upgrade that failed, or was left half way, and starts it; after stop.sh and before
# start.sh. Without an old agent in $stage nothing was changed yet. An agent is started whatever fails before.
#
# In: stage, program; what start.sh wants.

fail() {
	echo "$*" >&2
	exit 1
}

# Waits for an upgrade whose controller did not: it takes 15 s to end an agent, and some to write to flash.
wait_for_upgrade() {
	pid=$(cat "$stage/busy" 2>/dev/null)
	waited=0
	while [ -n "$pid" ] && [ -e "/proc/$pid" ] && [ $waited -lt 40 ]; do
		sleep 1
		waited=$((waited + 1))
		pid=$(cat "$stage/busy" 2>/dev/null)
	done
	[ -n "$pid" ] && kill -9 "$pid" 2>/dev/null
}

restore() {
	wait_for_upgrade
	if [ -f "$stage/listen" ]; then
		listen=$(cat "$stage/listen")
		interface=$(cat "$stage/interface")
		store=$(cat "$stage/store")
	fi
	[ -f "$stage/old" ] || return 0
	end_agent
	rm -f "$program"
	if ! cp "$stage/old" "$program" || ! cmp "$stage/old" "$program" || ! chmod 755 "$program"; then
		echo "cannot write $program: no space left?" >&2
		# What start.sh does next may well succeed; this did not.
		trap 'exit 1' EXIT
	fi
	sync
}
restore </dev/null
