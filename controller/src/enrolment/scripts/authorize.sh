# Adds a controller to the list of those that may connect, or removes it; prints `added`, `there`, `gone`, `absent` or
# `alone`, and then how many other controllers are on the list. Removes the only controller only if $force is set.
#
# In: state, fingerprint, controller (the whole line; empty removes it), force (or nothing).

newline='
'

# True if the process that made the lock is gone: it ran in an earlier boot, or has exited.
is_abandoned() {
	set -- $(cat "$list.lock/owner" 2>/dev/null)
	# A process that has not written its id for some seconds was killed before it could.
	if [ -z "$2" ]; then
		anonymous=$((anonymous + 1))
		[ $anonymous -gt 3 ]
		return
	fi
	anonymous=0
	[ "$2" != "$boot" ] || ! lives "$1"
}

# Waits until no other process changes the list. The lock is a directory, which every firmware can make in one step;
# this script takes over, in place, a lock whose owner is gone (agent/src/access/directory_lock.rs has the same rules).
lock_list() {
	boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)
	waited=0 anonymous=0
	until mkdir "$list.lock" 2>/dev/null; do
		if [ ! -d "$list.lock" ]; then
			# Its owner has just released it, or it cannot be made.
			mkdir "$list.lock" && break
			[ -d "$list.lock" ] || fail "cannot write to $state: no space left?"
		fi
		if is_abandoned && mkdir "$list.lock/takeover" 2>/dev/null; then
			if is_abandoned; then
				echo "$$ $boot" >"$list.lock/owner"
				rmdir "$list.lock/takeover"
				break
			fi
			rmdir "$list.lock/takeover"
		fi
		[ $waited -lt 20 ] || fail "somebody else changes $list; if not, remove $list.lock"
		sleep 1
		waited=$((waited + 1))
	done
	trap 'rm -rf "$list.lock" "$list.new"' EXIT
	echo "$$ $boot" >"$list.lock/owner"
}

# Makes $new the list, after reading it back: flash may be full, and a truncated list would lock out the others.
replace_list() {
	printf %s "$new" >"$list.new"
	# The shell removes trailing newlines from both.
	if [ "$(cat "$list.new")" != "$(printf %s "$new")" ] || ! mv "$list.new" "$list"; then
		fail "cannot write $list: no space left?"
	fi
}

# Reads the list: counts the other controllers, looks for this one, and makes the new list, without the line of this one
# if it is to be removed.
read_list() {
	others=0 new= found=
	[ -f "$list" ] || return 0
	while IFS= read -r line || [ -n "$line" ]; do
		key=$(key_of "$line")
		if [ "$key" = "$fingerprint" ]; then
			found=yes
			[ -n "$controller" ] || continue
		elif [ -n "$key" ]; then
			others=$((others + 1))
		fi
		new=$new$line$newline
	done <"$list"
}

authorize() {
	list=$state/authorized
	umask 077
	close_tmp
	[ -d "$state" ] || fail "$state is not there"
	must_be_ours "$state"
	[ ! -e "$list" ] || must_be_ours "$list"
	read_list
	if [ -z "$controller$force" ] && [ "$others" -eq 0 ]; then
		# Without a lock: flash may be full, and hop must still be able to remove the agent.
		echo alone
		echo 0
		return
	fi
	lock_list
	read_list
	if [ -n "$controller" ]; then
		said=there
		if [ -z "$found" ]; then
			new=$new$controller$newline
			replace_list
			said=added
		fi
	elif [ -z "$found" ]; then
		said=absent
	elif [ "$others" -eq 0 ] && [ -z "$force" ]; then
		said=alone
	else
		replace_list
		said=gone
	fi
	sync
	echo "$said"
	echo "$others"
}
authorize </dev/null
