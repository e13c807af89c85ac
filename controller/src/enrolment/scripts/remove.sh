# Removes all of Hop from this router, whatever of it is there; after stop.sh. Fails with what is still there then. What is
# not root's alone is not Hop's, and is left as it is.
#
# In: cache_dir (or nothing: then that of the agent that runs), or new_cache_dir (or nothing: a directory that is removed only if
# nothing is in it); home (or nothing: the directory of an installation that no boot hook names yet).

# Removes the programs that the cache directory keeps, and it, unless somebody else has something there.
remove_cache_dir() {
	[ -d "$cache_dir" ] && { is_ours "$cache_dir" || is_ownerless "$cache_dir"; } || return 0
	for file in "$cache_dir"/*; do
		name=${file##*/}
		name=${name%.part}
		case $name in
		*[!0-9a-f]*) ;;
		*) [ ${#name} -eq 64 ] && rm -f "$file" ;;
		esac
	done
	rmdir "$cache_dir" 2>/dev/null
}

remove() {
	close_tmp
	homes="$(hooked_homes) $home"
	pid=$(agent_pid)
	[ -n "$pid" ] && [ -z "$cache_dir$new_cache_dir" ] && cache_dir=$(option cache-dir)
	[ -x /etc/init.d/hopd ] && is_ours /etc/init.d/hopd && /etc/init.d/hopd disable
	end_agent
	rm -f /etc/init.d/hopd /etc/rc.d/S95hopd /etc/rc.d/K05hopd /etc/config/hopd
	# What was set and not committed; procd's lock of the init script; and what reload_config compares.
	for file in /tmp/.uci/hopd /var/run/uci/hopd /var/lock/procd_hopd.lock; do
		is_ours "$file" && rm -f "$file"
	done
	sed -i '/\/hopd$/d' /var/run/config.md5
	for prefix in '' /usr/local; do
		rm -f "$prefix/usr/sbin/hopd" "$prefix/lib/upgrade/keep.d/hopd"
	done
	rmdir /usr/local/lib/upgrade/keep.d /usr/local/lib/upgrade /usr/local/lib 2>/dev/null
	for directory in /etc/hopd /tmp/hop; do
		is_ours "$directory" && remove_tree "$directory"
	done
	for home in $homes; do
		is_ours "$home" || continue
		rm -f "$home/hopd" "$home/key" "$home/key.next" "$home/authorized" "$home/authorized.new" \
			"$home/start" "$home/settings"
		rm -rf "$home/authorized.lock"
	done
	is_ours /jffs/etc/config && rm -f /jffs/etc/config/hopd.startup && rmdir /jffs/etc/config /jffs/etc
	is_ours /opt/etc/init.d && rm -f /opt/etc/init.d/S95hopd && rmdir /opt/etc/init.d /opt/etc
	[ -n "$cache_dir" ] && remove_cache_dir
	[ -n "$new_cache_dir" ] && is_ours "${new_cache_dir%/*}" && rmdir "$new_cache_dir" 2>/dev/null
	for home in $homes; do
		is_ours "$home" && rmdir "$home" 2>/dev/null
	done
	clear_stages
	if command -v nvram >/dev/null && nvram get rc_startup | grep -q '^# hop begin$'; then
		others=$(nvram get rc_startup | sed '/^# hop begin$/,/^# hop end$/d')
		if [ -n "$others" ]; then nvram set "rc_startup=$others"; else nvram unset rc_startup; fi
		nvram commit
		# What the boot wrote there, after a first line of its own, before it ran it.
		if is_ours /tmp/.rc_startup; then
			sed -i '/^# hop begin$/,/^# hop end$/d' /tmp/.rc_startup
			grep -q '^[^#]' /tmp/.rc_startup || rm -f /tmp/.rc_startup
		fi
	fi
	sync
}
remove </dev/null >/dev/null 2>&1
for file in /usr/sbin/hopd /usr/local/usr/sbin/hopd /etc/hopd /etc/init.d/hopd /etc/config/hopd; do
	[ ! -e "$file" ] || fail "$file is still there"
done
! is_ours /tmp/hop 2>/dev/null || fail "/tmp/hop is still there"
for home in $homes; do
	[ ! -e "$home/hopd" ] || fail "$home/hopd is still there"
done
