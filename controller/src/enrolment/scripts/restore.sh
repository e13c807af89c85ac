# Puts the old agent back after an upgrade that failed, or was left half way, and starts it; after guard.sh and stop.sh, and
# before start.sh. Without an old agent in $stage nothing was changed yet. An agent is started whatever fails before.
#
# In: stage, program; what start.sh wants.

# Waits for an upgrade whose controller did not: it takes 15 s to end an agent, and some to write to flash.
wait_for_upgrade() {
	waited=0
	while number=$(cat "$stage/replacing" 2>/dev/null) && lives "$number" && [ $waited -lt 40 ]; do
		sleep 1
		waited=$((waited + 1))
	done
	[ -n "$number" ] && kill -9 "$number" 2>/dev/null
}

restore() {
	wait_for_upgrade
	if [ -f "$stage/listen" ]; then
		listen=$(cat "$stage/listen")
		interface=$(cat "$stage/interface")
		cache_dir=$(cat "$stage/cache_dir")
	fi
	[ -f "$stage/old" ] || return 0
	end_agent
	rm -f "$program"
	if ! cp "$stage/old" "$program" || ! cmp "$stage/old" "$program" || ! chmod 755 "$program"; then
		echo "cannot write $program: no space left?" >&2
		# What start.sh does next may well succeed; this did not.
		failed=1
	fi
	sync
}
restore </dev/null
