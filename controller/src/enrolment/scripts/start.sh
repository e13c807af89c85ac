# Starts an agent that was placed, now and, if it is installed, at every boot. An agent that runs already is left alone.
#
# In: as place.sh.

# Our lines in nvram's rc_startup stand between these two.
begin='# hop begin'
end='# hop end'

hook_into_nvram() {
	others=$(nvram get rc_startup | sed "/^$begin\$/,/^$end\$/d")
	wanted="${others:+$others
}$begin
$hook_script
$end"
	[ "$(nvram get rc_startup)" = "$wanted" ] && return
	# `nvram` always says that it succeeded; what it has left tells more, and so does reading again.
	# It is negative if there is more in RAM than the flash holds.
	left=$(nvram show 2>&1 >/dev/null | sed -n 's/.*(\(-*[0-9]*\) left).*/\1/p')
	[ "${left:-9999}" -gt 2048 ] || fail "nvram has only $left bytes left"
	nvram set "rc_startup=$wanted"
	[ "$(nvram get rc_startup)" = "$wanted" ] || fail "nvram does not take the boot hook"
	nvram commit
}

start() {
	close_tmp
	[ -n "$(agent_pid)" ] && exit 0
	must_be_ours "$program"
	must_be_ours "$state"
	case $starter in
	procd)
		must_be_ours /etc/init.d/hopd
		/etc/init.d/hopd enable || fail "/etc/init.d/hopd cannot be enabled"
		/etc/init.d/hopd start || fail "/etc/init.d/hopd cannot be started"
		;;
	boot-hook)
		mkdir -p "${hook%/*}"
		must_be_ours "${hook%/*}"
		rm -f "$hook"
		echo "$hook_script" >"$hook" && chmod 755 "$hook" || fail "cannot write $hook: no space left?"
		must_be_ours "$state/start"
		sh "$state/start"
		;;
	nvram)
		hook_into_nvram
		must_be_ours "$state/start"
		sh "$state/start"
		;;
	none)
		[ -n "$cache_dir" ] && set -- --cache-dir "$cache_dir"
		[ -n "$interface" ] && set -- --interface "$interface" "$@"
		# What is in the log from now on is of this start.
		[ ! -f /tmp/hop/log ] || mv /tmp/hop/log /tmp/hop/log.old
		"$program" --supervise --listen "$listen" --dir /tmp/hop --pid-file /tmp/hop/pid --log /tmp/hop/log \
			--key "$state/key" --authorized "$state/authorized" "$@" </dev/null >/dev/null 2>>/tmp/hop/log &
		;;
	esac
}
start </dev/null
