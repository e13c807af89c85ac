# Moves the agent that was tested in $stage to where it stays, makes its key, writes the list of the controllers that
# may connect, and prints the fingerprint of the key.
#
# In: stage, way (until-reboot or install), starter (procd, boot-hook, nvram or none), program, state, listen, interface, cache_dir,
# controller (a line for the list of who may connect), and for procd: keep, init_script, config; for the other
# installations: start_script, settings, hook, hook_script.

make_state() {
	umask 077
	if [ "$state" = /tmp/hop ]; then
		# Not -p: anybody may make a directory in /tmp, or a link, before us.
		mkdir /tmp/hop 2>/dev/null || is_private /tmp/hop || fail "somebody else has made /tmp/hop: remove it"
	else
		must_be_ours "${state%/*}"
		mkdir -p "$state" || fail "cannot make $state"
		must_be_ours "$state"
		chmod 700 "$state" || fail "cannot make $state private"
	fi
	# A USB stick may have come with links, through which nothing may be written, and with a key that its maker knows.
	rm -rf "$state/authorized" "$state/authorized.new" "$state/authorized.lock"
	case $starter in
	boot-hook | nvram) rm -f "$state/hopd" "$state/key" "$state/key.next" "$state/start" "$state/settings" ;;
	esac
}

# A disk without owners is everybody's or root's, as it was mounted, and has no links that lead elsewhere.
make_cache_dir() {
	[ -n "$cache_dir" ] || return 0
	part=$cache_dir
	while [ -n "$part" ] && [ ! -e "$part" ]; do part=${part%/*}; done
	part=${part:-/}
	is_ownerless "$part" || must_be_ours "$part"
	mkdir -p "$cache_dir" || fail "cannot make the cache directory $cache_dir"
}

place() {
	echo $$ >"$stage/busy"
	trap 'rm -f "$stage/busy"' EXIT
	close_tmp
	make_state
	umask 022
	mkdir -p "${program%/*}" || fail "cannot make ${program%/*}"
	must_be_ours "${program%/*}"
	rm -f "$program"
	if [ "$way" = install ]; then
		cp "$stage/hopd" "$program" || fail "cannot write $program: no space left?"
		# Flash does not always return the bytes that were written to it.
		cmp "$stage/hopd" "$program" || fail "$program is not what was written to it"
		rm "$stage/hopd"
	else
		mv "$stage/hopd" "$program" || fail "cannot write $program"
	fi
	chmod 755 "$program" || fail "cannot make $program executable"

	umask 077
	make_cache_dir
	echo "$controller" >"$state/authorized" || fail "cannot write $state/authorized: no space left?"
	fingerprint=$("$program" --fingerprint --key "$state/key") || fail "cannot make a key in $state"

	case $starter in
	procd)
		umask 022
		mkdir -p "${keep%/*}" || fail "cannot make ${keep%/*}"
		echo "$init_script" >/etc/init.d/hopd && chmod 755 /etc/init.d/hopd || fail "cannot write /etc/init.d/hopd: no space left?"
		echo "$config" >/etc/config/hopd || fail "cannot write /etc/config/hopd: no space left?"
		# What somebody has set and not committed counts as soon as there is the file that it changes.
		for delta in /tmp/.uci/hopd /var/run/uci/hopd; do
			is_ours "$delta" && rm -f "$delta"
		done
		# reload_config knows only files that were there when it ran last. A digest that is not ours makes it look.
		checked=/var/run/config.md5
		if [ -f $checked ] && ! grep -q '/hopd$' $checked; then
			echo "00000000000000000000000000000000  /var/run/config.check/hopd" >>$checked
		fi
		# What survives a firmware upgrade.
		for file in "$keep" "$program" /etc/init.d/hopd /etc/rc.d/S95hopd /etc/rc.d/K05hopd /etc/config/hopd /etc/hopd/; do
			echo "$file"
		done >"$keep" || fail "cannot write $keep: no space left?"
		;;
	boot-hook | nvram)
		echo "$start_script" >"$state/start" && chmod 700 "$state/start" || fail "cannot write $state/start: no space left?"
		echo "$settings" >"$state/settings" || fail "cannot write $state/settings: no space left?"
		;;
	esac
	sync
	echo "fingerprint $fingerprint"
}
place </dev/null
