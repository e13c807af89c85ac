# Makes the key that was prepared the agent's key, in one step, and prints the fingerprint of what is its key then.
#
# In: state, program; next, the fingerprint of the key that was prepared: another one may have been prepared since.

rekey() {
	close_tmp
	must_be_ours "$program"
	must_be_ours "$state"
	if [ -f "$state/key.next" ] && [ "$("$program" --fingerprint --key "$state/key.next")" = "$next" ]; then
		mv "$state/key.next" "$state/key" || fail "cannot write $state/key"
		sync
	fi
	echo "fingerprint $("$program" --fingerprint --key "$state/key")"
}
rekey </dev/null
