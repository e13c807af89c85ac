# Adds a controller to those that may connect, or takes it off unless it is the only one; prints `added`, `there`, `gone`
# or `alone`, and then how many others there are.
#
# In: state, fingerprint, controller (the whole line; empty takes it off).

fail() {
	echo "$*" >&2
	exit 1
}

authorize() {
	list=$state/authorized
	umask 077
	[ -d "$state" ] || fail "$state is not there"
	others=$(grep -v "^$fingerprint" "$list" | grep -c '^SHA256:')
	if [ -z "$controller" ] && [ "$others" -eq 0 ]; then
		# Nothing is written: flash may be full, and that must not keep an agent from being removed.
		echo alone
	elif [ -z "$controller" ]; then
		grep -v "^$fingerprint" "$list" >"$list.new"
		# A list that was cut off would shut out the others.
		if [ "$(grep -c '^SHA256:' "$list.new")" != "$others" ] || ! mv "$list.new" "$list"; then
			rm -f "$list.new"
			fail "cannot write $list: no space left?"
		fi
		echo gone
	elif grep -q "^$fingerprint" "$list" 2>/dev/null; then
		echo there
	else
		echo "$controller" >>"$list" || fail "cannot write $list: no space left?"
		echo added
	fi
	sync
	echo "$others"
}
authorize </dev/null
