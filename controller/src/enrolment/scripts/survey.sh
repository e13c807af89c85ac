# Says what a router is, in sections, each after a line `@NAME`. It changes nothing, and runs nothing that it finds.
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
ubus list service >/dev/null 2>&1 && echo procd-service
section missing
for tool in cat chmod cmp cp df grep kill ls mkdir mv printf rm rmdir sed sleep sync tail tr umount wc; do
	command -v $tool >/dev/null 2>&1 || echo $tool
done
section guard
for directory in $(stages); do
	is_guarded "$directory" && echo "$directory"
done
section homes hooked_homes
# What is there of an agent: its size, and its digest where there is a sha256sum.
section agent
for home in /usr/sbin /usr/local/usr/sbin $(hooked_homes) /tmp/hop; do
	file=$home/hopd
	if [ -x "$file" ] && is_ours "$file"; then
		digest=$(sha256sum "$file" 2>/dev/null)
		echo "$file" $(wc -c <"$file") ${digest%% *}
	fi
done
# What is where Hop's own should be, and somebody other than root can have made. A name of /tmp/mnt can be any text.
section foreign
for file in /usr/sbin/hopd /usr/local/usr/sbin/hopd $(boot_hooks) $(hooked_homes); do
	[ -e "$file" ] || [ -L "$file" ] && ! is_ours "$file" && echo "$file"
done
[ -e /tmp/hop ] || [ -L /tmp/hop ] && ! is_private /tmp/hop && echo /tmp/hop
section open
for place in /jffs /opt /tmp/mnt/*; do
	case $place in
	*[!A-Za-z0-9._/-]*) ;;
	*) [ -d "$place" ] && ! is_ours "$place" && echo "$place" ;;
	esac
done
# The first bytes of whatever runs this: their header says what programs here are made for. They are the last section,
# because they are no text.
section elf dd if=/proc/self/exe bs=64 count=1
exit 0
