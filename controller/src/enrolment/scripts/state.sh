# Functions that tell what the agent of this router does, for other scripts; after ownership.sh.
#
# In: starter (procd, boot-hook, nvram or none).

# The ports on which agents listen, in hexadecimal digits. A socket is the process's that has its inode open: another
# program that listens on a port is not taken for the agent.
agent_ports() {
	for comm in $(grep -l '^hopd$' /proc/[0-9]*/comm); do
		number=${comm#/proc/}
		number=${number%/comm}
		is_hopd "$number" && ls -l "/proc/$number/fd"
	done | sed -n 's/.* -> socket:\[\([0-9]*\)\]$/\1/p' | while read -r inode; do
		# After the addresses and 0A, LISTEN, come queues, timer, retransmits, user, timeout, inode.
		before='^ *[0-9]*: [0-9A-F]*:\([0-9A-F]*\) [0-9A-F:]* 0A [0-9A-F:]* [0-9A-F:]* [0-9A-F]*  *[0-9]*  *[0-9]*'
		sed -n "s/$before $inode .*/\1/p" /proc/net/tcp /proc/net/tcp6
	done
} 2>/dev/null

# True if the agent does not run now: it has ended, or waits to be started again. $waited is how long ago it was started, in
# seconds; nothing if that was long ago.
is_down() {
	case $starter in
	procd) ! ubus call service list '{"name":"hopd"}' | grep -q '"running": true' ;;
	*)
		# The supervisor writes the last line when it waits.
		is_ours /tmp/hop/log && tail -n 1 /tmp/hop/log | grep -q '^supervisor: ' && return
		# One that was started just now may not have written its number yet.
		[ "${waited:-3}" -ge 3 ] || return
		[ -z "$(agent_pid)" ]
		;;
	esac
} 2>/dev/null

# What the agent said last: its error, if it ended with one.
last_words() {
	if [ "$starter" = procd ]; then
		lines=$(logread 2>/dev/null | sed -n 's/.* \(hopd[][0-9]*: \)/\1/p')
		# Those of the last process only, by the number in them.
		tag=$(echo "$lines" | sed -n '$s/: .*//p')
		lines=$(echo "$lines" | grep -F "$tag: " | sed 's/^hopd[][0-9]*: *//')
	else
		lines=$(is_ours /tmp/hop/log && tail -n 2 /tmp/hop/log)
	fi
	said=$(echo "$lines" | sed -n 's/^error: //p' | tail -n 1)
	[ -n "$said" ] || said=$(echo "$lines" | tail -n 1)
	echo "${said:-it said nothing}"
}
