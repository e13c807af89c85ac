# Removes all of Hop from this router, whatever of it is there; after stop.sh. Fails with what is still there then.
#
# In: homes (directories in which DD-WRT's installation may be); store (or nothing: then that of the agent that runs), or
# new_store (or nothing: a store that is removed only if nothing is in it).

# Removes the programs that the store keeps, and it, unless somebody else has something there.
remove_store() {
	[ -d "$store" ] || return 0
	for file in "$store"/*; do
		name=${file##*/}
		name=${name%.part}
		case $name in
		*[!0-9a-f]*) ;;
		*) [ ${#name} -eq 64 ] && rm -f "$file" ;;
		esac
	done
	rmdir "$store" 2>/dev/null
}

remove() {
	if [ -z "$store$new_store" ]; then
		store=$(tr '\0' '\n' <"/proc/$(cat /tmp/hop/pid)/cmdline" | sed -n '/^--store$/{n;p;}')
	fi
	[ -x /etc/init.d/hopd ] && /etc/init.d/hopd disable
	end_agent
	rm -f /etc/init.d/hopd /etc/rc.d/S95hopd /etc/rc.d/K05hopd /etc/config/hopd
	for prefix in '' /usr/local; do
		rm -f "$prefix/usr/sbin/hopd" "$prefix/lib/upgrade/keep.d/hopd"
	done
	rmdir /usr/local/lib/upgrade/keep.d /usr/local/lib/upgrade /usr/local/lib 2>/dev/null
	rm -rf /etc/hopd /tmp/hop
	for home in $homes; do
		rm -f "$home/hopd" "$home/key" "$home/authorized" "$home/start" "$home/settings" \
			"$home/key.next" "$home/authorized.new"
		rm -rf "$home/authorized.lock"
	done
	rm -f /jffs/etc/config/hopd.startup /opt/etc/init.d/S95hopd
	rmdir /jffs/etc/config /jffs/etc /opt/etc/init.d /opt/etc 2>/dev/null
	[ -n "$store" ] && remove_store
	[ -n "$new_store" ] && rmdir "$new_store" 2>/dev/null
	for home in $homes; do
		rmdir "$home" 2>/dev/null
	done
	# Left by an upgrade whose link was cut. Where a guard lives, the directory is the guard's.
	for file in /tmp/hop-????????????????; do
		pid=
		[ -f "$file/guard" ] && pid=$(cat "$file/guard")
		[ -n "$pid" ] && [ -e "/proc/$pid" ] || rm -rf "$file"
	done
	if command -v nvram >/dev/null && nvram get rc_startup | grep -q '^# hop begin$'; then
		others=$(nvram get rc_startup | sed '/^# hop begin$/,/^# hop end$/d')
		if [ -n "$others" ]; then nvram set "rc_startup=$others"; else nvram unset rc_startup; fi
		nvram commit
		# What the boot wrote there, after a first line of its own, before it ran it.
		sed -i '/^# hop begin$/,/^# hop end$/d' /tmp/.rc_startup
		grep -q '^[^#]' /tmp/.rc_startup || rm -f /tmp/.rc_startup
	fi
	sync
}
remove </dev/null >/dev/null 2>&1
for home in /usr/sbin /usr/local/usr/sbin $homes; do
	for file in "$home/hopd" /etc/hopd /etc/init.d/hopd /etc/config/hopd /tmp/hop; do
		if [ -e "$file" ]; then
			echo "$file is still there" >&2
			exit 1
		fi
	done
done
