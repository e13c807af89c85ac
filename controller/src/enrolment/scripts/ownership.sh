# Functions that tell which files on this router are root's alone; hop puts them before every other script. A router has
# users besides root, everybody can write to /tmp, and a USB stick may come from anyone. The scripts run as root, so
# they neither run nor read nor write a file that another user could have made.
#
# In: nothing.

fail() {
	echo "$*" >&2
	exit 1
}

# Makes /tmp sticky where it is not, as on a DD-WRT: any user could rename root's files there, and replace them between
# the check and the use. Every script that changes something calls this first.
close_tmp() {
	case $(ls -ldn /tmp) in
	d???????w[x-]*) chmod +t /tmp || fail "cannot make /tmp sticky" ;;
	esac
}

# True for the line of `ls -ldn` of a file, a directory or a link that is root's, and that nobody else can write to.
is_roots() {
	case $1 in
	[d-]????-??-* | l*) [ "$3" = 0 ] ;;
	*) false ;;
	esac
}

# True if $1 and all that is above it are root's, and nobody else can write to them: /tmp excepted, which is everybody's.
is_closed() {
	[ -n "$1" ] || return 1
	part=$1
	while [ -n "$part" ]; do
		[ "$part" = /tmp ] || is_roots $(ls -ldn "$part" 2>/dev/null) || return 1
		part=${part%/*}
	done
}

# True if nobody but root can have made $1. It is no link itself; of those above it, where they lead is closed as well.
is_ours() {
	[ ! -L "$1" ] && is_closed "$1" && is_closed "$(cd -P "${1%/*}/" && pwd -P)"
}

# True if that goes for the directory $1, and nobody else can look into it.
is_private() {
	case $(ls -ldn "$1") in
	d???------* | d???--x--x*) is_ours "$1" ;;
	*) false ;;
	esac
}

must_be_ours() {
	is_ours "$1" || fail "$1 is not root's alone, so it is left as it is: see \`ls -ldn\` of it and of what is above"
}

# Prints the key in a line of the list of who may connect, as the agent reads it: the first word that is one, because options
# may stand before it.
key_of() {
	set -f
	for word in $1; do
		case $word in
		'#'*) return ;;
		SHA256:*)
			echo "SHA256:$(echo "${word#SHA256:}" | tr -d '\r' | tr A-F a-f)"
			return
			;;
		esac
	done
}

# Removes a directory and all that is in it, but nothing that is mounted there.
remove_tree() {
	while mounted=$(sed -n "s#^[^ ]* \($1/[^ ]*\) .*#\1#p" /proc/mounts | tail -n 1) && [ -n "$mounted" ]; do
		umount "$mounted" 2>/dev/null || umount -l "$mounted" 2>/dev/null || return 1
	done
	rm -rf "$1"
}

# True if $1 is on a file system that knows neither owners nor links.
is_ownerless() {
	mounted=$(df -P "$1" | tail -n 1)
	grep -q " ${mounted##* } \(vfat\|msdos\|exfat\|ntfs\|ntfs3\) " /proc/mounts
}

# Prints the files that a DD-WRT runs at boot and that are Hop's, whether they are there or not.
boot_hooks() {
	echo /jffs/etc/config/hopd.startup /opt/etc/init.d/S95hopd
}

# Prints the directories that the boot hooks of a DD-WRT name as an agent's. A stick that merely has such a directory may
# be anybody's.
hooked_homes() {
	{
		for hook in $(boot_hooks); do
			is_ours "$hook" && cat "$hook"
		done
		command -v nvram >/dev/null && nvram get rc_startup | sed -n '/^# hop begin$/,/^# hop end$/p'
	} | sed -n 's#.* \(/[^ ;]*\)/start[; ].*#\1#p'
}

# True if the process $1 runs: not if it has exited and its parent, which may be an init that reaps nobody, has not noticed.
lives() {
	case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in
	'' | [ZX]*) return 1 ;;
	esac
}

# True if $1 is the number of a process of root's that runs hopd.
is_hopd() {
	case $1 in
	'' | *[!0-9]*) return 1 ;;
	esac
	is_roots $(ls -ldn "/proc/$1" 2>/dev/null) || return 1
	case $(ls -l "/proc/$1/exe" 2>/dev/null) in
	*/hopd | *"/hopd (deleted)") ;;
	*) return 1 ;;
	esac
}

# Prints the number of the agent that runs, or of its supervisor.
agent_pid() {
	is_ours /tmp/hop/pid || return 1
	number=$(cat /tmp/hop/pid)
	is_hopd "$number" && echo "$number"
}

# Prints the word after --$1 on the command line of the process $pid.
option() {
	tr '\0' '\n' <"/proc/$pid/cmdline" | sed -n "/^--$1\$/{n;p;q;}"
}

# True if a guard lives in the directory $1: its command names the directory.
is_guarded() {
	is_ours "$1/guard" && grep -q "${1##*/}" "/proc/$(cat "$1/guard")/cmdline" 2>/dev/null
}

# Prints the directories in /tmp that enrolments and upgrades have made. Others may make one, with a name of any kind.
stages() {
	for directory in /tmp/hop-????????????????; do
		case ${directory#/tmp/hop-} in
		*[!0-9a-f]*) ;;
		*) is_private "$directory" 2>/dev/null && echo "$directory" ;;
		esac
	done
}

# Removes what is left of those whose guard was killed.
clear_stages() {
	for directory in $(stages); do
		is_guarded "$directory" && continue
		# One that was made just now may not be signed yet.
		sleep 1
		is_guarded "$directory" || remove_tree "$directory"
	done
}
