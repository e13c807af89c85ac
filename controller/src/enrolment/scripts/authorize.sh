# Adds a controller to those that may connect, or takes it off unless it is the only one; prints `added`, `there`, `gone`
# or `alone`, and then how many others there are.
#
# In: state, fingerprint, controller (the whole line; empty takes it off).

# Makes what it is given the list, if it has $1 controllers: flash may be full, and a list that was cut off would shut out
# the others.
replace_list() {
	rm -f "$list.new"
	cat >"$list.new"
	if [ "$(grep -c '^SHA256:' "$list.new")" != "$1" ] || ! mv "$list.new" "$list"; then
		rm -f "$list.new"
		fail "cannot write $list: no space left?"
	fi
}

authorize() {
	list=$state/authorized
	umask 077
	close_tmp
	[ -d "$state" ] || fail "$state is not there"
	must_be_ours "$state"
	[ ! -e "$list" ] || must_be_ours "$list"
	others=$(grep -v "^$fingerprint" "$list" | grep -c '^SHA256:')
	if [ -z "$controller" ] && [ "$others" -eq 0 ]; then
		# Nothing is written: flash may be full, and that must not keep an agent from being removed.
		echo alone
	elif [ -z "$controller" ]; then
		grep -v "^$fingerprint" "$list" | replace_list "$others" || exit 1
		echo gone
	elif grep -q "^$fingerprint" "$list" 2>/dev/null; then
		echo there
	else
		# Written anew: grep ends the last line, which somebody's editor may not have ended.
		{
			grep '' "$list" 2>/dev/null
			echo "$controller"
		} | replace_list $((others + 1)) || exit 1
		echo added
	fi
	sync
	echo "$others"
}
authorize </dev/null
