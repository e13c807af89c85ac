# Starts an agent that was placed, now and, if it is installed, at every boot. An agent that runs already is left alone.
#
# In: as place.sh.

fail() {
	echo "$*" >&2
	exit 1
}

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
	left=$(nvram show 2>&1 >/dev/null | sed -n 's/.*(\([0-9]*\) left).*/\1/p')
	[ "${left:-9999}" -gt 2048 ] || fail "nvram has only $left bytes left"
	nvram set "rc_startup=$wanted"
	[ "$(nvram get rc_startup)" = "$wanted" ] || fail "nvram does not take the boot hook"
	nvram commit
}

start() {
	pid=$(cat /tmp/hop/pid 2>/dev/null)
	if [ -n "$pid" ] && grep -q hopd "/proc/$pid/cmdline" 2>/dev/null; then
		exit 0
	fi
	case $starter in
	procd)
		/etc/init.d/hopd enable || fail "/etc/init.d/hopd cannot be enabled"
		/etc/init.d/hopd start || fail "/etc/init.d/hopd cannot be started"
		;;
	boot-hook)
		mkdir -p "${hook%/*}"
		echo "$hook_script" >"$hook" && chmod 755 "$hook" || fail "cannot write $hook: no space left?"
		sh "$state/start"
		;;
	nvram)
		hook_into_nvram
		sh "$state/start"
		;;
	none)
		[ -n "$store" ] && set -- --store "$store"
		[ -n "$interface" ] && set -- --interface "$interface" "$@"
		"$program" --supervise --listen "$listen" --dir /tmp/hop --pid-file /tmp/hop/pid --log /tmp/hop/log \
			--key "$state/key" --authorized "$state/authorized" "$@" </dev/null >/dev/null 2>&1 &
		;;
	esac
}
start </dev/null
