# Functions that stop an agent, for other scripts.

# Ends the agent that wrote /tmp/hop/pid: asks, waits for its jobs and itself, and insists. A supervisor
# gives its agent 10 s before it insists itself; one that is killed earlier could not.
end_agent() {
	pid=$(cat /tmp/hop/pid 2>/dev/null)
	[ -x /etc/init.d/hopd ] && /etc/init.d/hopd stop
	[ -n "$pid" ] && grep -q hopd "/proc/$pid/cmdline" 2>/dev/null || return 0
	kill "$pid" 2>/dev/null
	waited=0
	while [ -e "/proc/$pid" ] && [ $waited -lt 15 ]; do
		sleep 1
		waited=$((waited + 1))
	done
	[ -e "/proc/$pid" ] && kill -9 "$pid" 2>/dev/null
	return 0
}
