# Says what a router is, in sections, each after a line `@NAME`. It changes nothing.
#
# Like every script here it uses only what OpenWrt, RutOS and DD-WRT all have: no base64, stat, mktemp, readlink,
# timeout, setsid, head -c, find -exec.
section() {
	echo "@$1"
	shift
	"$@" 2>/dev/null
}
section user id -u
section uname uname -mrs
section system uname -o
section openwrt cat /etc/openwrt_release
section os-release cat /etc/os-release
section version cat /etc/version
section opkg cat /etc/opkg.conf
section init cat /proc/1/comm
section cpuinfo cat /proc/cpuinfo
section meminfo cat /proc/meminfo
section min_free_kbytes cat /proc/sys/vm/min_free_kbytes
section overcommit_memory cat /proc/sys/vm/overcommit_memory
section mounts cat /proc/mounts
section df df -kP
section tools
for tool in procd ubus uci opkg apk nvram mnf_info sha256sum md5sum; do
	command -v $tool >/dev/null 2>&1 && echo $tool
done
section guard
for file in /tmp/hop-*/guard; do
	[ -f "$file" ] && pid=$(cat "$file" 2>/dev/null) && [ -n "$pid" ] && [ -e "/proc/$pid" ] && echo "$file"
done
section agent
for file in /usr/sbin/hopd /usr/local/usr/sbin/hopd /jffs/hop/hopd /opt/hop/hopd /tmp/mnt/*/hop/hopd /tmp/hop/hopd; do
	[ -x "$file" ] && echo "$file" "$("$file" --version 2>/dev/null)"
done
# The first bytes of whatever runs this: their header says what programs here are made for. They are the last section,
# because they are no text.
section elf dd if=/proc/self/exe bs=64 count=1
exit 0
