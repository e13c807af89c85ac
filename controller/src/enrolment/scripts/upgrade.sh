# Replaces the agent that runs with another one; between stop.sh and start.sh, which starts it. It runs to its end even
# without its controller. $stage holds the means of a rollback: the old agent, and the options that it was started with.
#
# In: stage, program, and the variables of start.sh.

upgrade() {
	echo $$ >"$stage/replacing"
	trap 'rm -f "$stage/replacing"' EXIT
	close_tmp
	must_be_ours "$program"
	pid=$(agent_pid)
	if [ -n "$pid" ]; then
		# Another controller may have started it with other options.
		listen=$(option listen)
		interface=$(option interface)
		cache_dir=$(option cache-dir)
		echo "$listen" >"$stage/listen"
		echo "$interface" >"$stage/interface"
		echo "$cache_dir" >"$stage/cache_dir"
	fi
	# While the old agent still runs: there may be too little space.
	cp "$program" "$stage/old.new" && mv "$stage/old.new" "$stage/old" || fail "cannot keep the old agent in $stage: no space left?"
	end_agent
	# Not over the old file: flash may not have space for both, and the kernel refuses writes to an executable that
	# runs.
	rm -f "$program"
	cp "$stage/hopd" "$program" && cmp "$stage/hopd" "$program" && chmod 755 "$program" || fail "cannot write $program: no space left?"
	sync
}
upgrade </dev/null
