# uci as functions.

uci_load() { config_load "$@"; }

# uci_get PACKAGE SECTION [OPTION] [DEFAULT]
uci_get() {
	local value
	if value="$(/sbin/uci -q get "$1.$2${3:+.$3}")"; then
		echo "$value"
	elif [ -n "$4" ]; then
		echo "$4"
	else
		return 1
	fi
}

uci_set() { /sbin/uci -q set "$1.$2.$3=$4"; }
uci_add_list() { /sbin/uci -q add_list "$1.$2.$3=$4"; }
uci_remove() { /sbin/uci -q delete "$1.$2${3:+.$3}"; }
uci_commit() { /sbin/uci commit "$1"; }
uci_revert() { /sbin/uci revert "$1"; }

# uci_add PACKAGE TYPE [NAME]; the name of an anonymous section is left in CONFIG_SECTION
uci_add() {
	if [ -n "$3" ]; then
		/sbin/uci -q set "$1.$3=$2" && CONFIG_SECTION=$3
	else
		CONFIG_SECTION="$(/sbin/uci -q add "$1" "$2")"
	fi
}
