# Waits until the agent listens on $port, 30 s at most. If it does not, says why on standard error, as soon as that is known;
# after state.sh.
#
# In: port; what state.sh wants.

listening() {
	wanted=$(printf '%04X' "$port")
	waited=0
	while :; do
		found=$(agent_ports)
		for one in $found; do
			[ "$one" = "$wanted" ] && exit 0
		done
		for one in $found; do
			echo "it listens on port $((0x$one)) and not on $port" >&2
			exit 1
		done
		if [ $waited -ge 30 ] || is_down; then
			last_words >&2
			exit 1
		fi
		sleep 1
		waited=$((waited + 1))
	done
}
listening </dev/null
