# Makes the key that was prepared the agent's key, in one step, and prints the fingerprint of what is its key then.
#
# In: state, program.

fail() {
	echo "$*" >&2
	exit 1
}

rekey() {
	if [ -f "$state/key.next" ]; then
		mv "$state/key.next" "$state/key" || fail "cannot write $state/key"
		sync
	fi
	echo "fingerprint $("$program" --fingerprint --key "$state/key")"
}
rekey </dev/null
