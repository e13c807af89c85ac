# Removes all of Hop from this router, whatever of it is there; after stop.sh.
#
# In: homes (directories in which DD-WRT's installation may be).

remove() {
	[ -x /etc/init.d/hopd ] && /etc/init.d/hopd disable
	end_agent
	rm -f /etc/init.d/hopd /etc/rc.d/S95hopd /etc/rc.d/K05hopd /etc/config/hopd
	for prefix in '' /usr/local; do
		rm -f "$prefix/usr/sbin/hopd" "$prefix/lib/upgrade/keep.d/hopd"
	done
	rmdir /usr/local/lib/upgrade/keep.d /usr/local/lib/upgrade /usr/local/lib 2>/dev/null
	rm -rf /etc/hopd /tmp/hop
	for home in $homes; do
		rm -f "$home/hopd" "$home/key" "$home/authorized" "$home/start" "$home/settings"
		rmdir "$home" 2>/dev/null
	done
	rm -f /jffs/etc/config/hopd.startup /opt/etc/init.d/S95hopd
	if command -v nvram >/dev/null && nvram get rc_startup | grep -q '^# hop begin$'; then
		others=$(nvram get rc_startup | sed '/^# hop begin$/,/^# hop end$/d')
		if [ -n "$others" ]; then nvram set "rc_startup=$others"; else nvram unset rc_startup; fi
		nvram commit
	fi
	sync
	return 0
}
remove </dev/null >/dev/null 2>&1
