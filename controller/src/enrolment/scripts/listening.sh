# Waits until somebody listens on $port, 30 s at most; if nobody does, says the agent's last words.
#
# In: port.

listening() {
	address="[0-9A-F]*:$(printf '%04X' "$port") 00000000:0000 0A"
	waited=0
	while ! grep -q "^ *[0-9]*: $address" /proc/net/tcp; do
		if [ $waited -ge 30 ]; then
			{
				logread 2>/dev/null | grep hopd | tail -n 1
				tail -n 1 /tmp/hop/log
			} 2>/dev/null >&2
			exit 1
		fi
		sleep 1
		waited=$((waited + 1))
	done
}
listening </dev/null
