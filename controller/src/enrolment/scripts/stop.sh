# Functions that stop an agent, for other scripts.

# Ends the agent that wrote /tmp/hop/pid: asks, waits for its jobs and itself, and insists. A supervisor
# gives its agent 10 s before it insists itself; one that is killed earlier could not.
end_agent() {
	pid=$(agent_pid)
	[ -x /etc/init.d/hopd ] && is_ours /etc/init.d/hopd && /etc/init.d/hopd stop
	is_hopd "$pid" || return 0
	kill "$pid" 2>/dev/null
	waited=0
	while is_hopd "$pid" && [ $waited -lt 15 ]; do
		sleep 1
		waited=$((waited + 1))
	done
	is_hopd "$pid" && kill -9 "$pid" 2>/dev/null
	return 0
}
