# Puts another agent in the place of the one that runs, and starts it; after stop.sh and before start.sh. It goes on to
# its end without its controller. What it takes to go back is in $stage: the old agent, and how it was started.
#
# In: stage, program; what start.sh wants.

upgrade() {
	echo $$ >"$stage/replacing"
	trap 'rm -f "$stage/replacing"' EXIT
	close_tmp
	must_be_ours "$program"
	pid=$(agent_pid)
	if [ -n "$pid" ]; then
		# Another controller may have started it, and wished for something else.
		listen=$(option listen)
		interface=$(option interface)
		cache_dir=$(option cache-dir)
		echo "$listen" >"$stage/listen"
		echo "$interface" >"$stage/interface"
		echo "$cache_dir" >"$stage/cache_dir"
	fi
	# While the old one still runs: there may be no room.
	cp "$program" "$stage/old.new" && mv "$stage/old.new" "$stage/old" || fail "cannot keep the old agent in $stage: no space left?"
	end_agent
	# Not over the old file: flash may not have room for both, and an executable that runs cannot be written to.
	rm -f "$program"
	cp "$stage/hopd" "$program" && cmp "$stage/hopd" "$program" && chmod 755 "$program" || fail "cannot write $program: no space left?"
	sync
}
upgrade </dev/null
