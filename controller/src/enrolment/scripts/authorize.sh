# Adds a controller to those that may connect, or takes it off; prints `added`, `there` or `gone`, and then how many
# others there are.
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
	if [ -z "$controller" ]; then
		grep -v "^$fingerprint" "$list" >"$list.new"
		mv "$list.new" "$list" || fail "cannot write $list: no space left?"
		echo gone
	elif grep -q "^$fingerprint" "$list" 2>/dev/null; then
		echo there
	else
		echo "$controller" >>"$list" || fail "cannot write $list: no space left?"
		echo added
	fi
	sync
	grep -v "^$fingerprint" "$list" | grep -c '^SHA256:'
	return 0
}
authorize </dev/null
