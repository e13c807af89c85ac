# Functions that init scripts expect: the configuration, as variables, and lists in variables.
#
# config_load makes CONFIG_SECTION_OPTION of every option, CONFIG_SECTION_TYPE of every section, and of a list also
# CONFIG_SECTION_OPTION_ITEM1 and so on, with their number in CONFIG_SECTION_OPTION_LENGTH.

append() {
	eval "$1=\"\${$1:+\$$1${3:- }}\$2\""
}

list_contains() {
	local _list
	eval "_list=\" \$$1 \""
	case $_list in
		*" $2 "*) return 0 ;;
	esac
	return 1
}

list_remove() {
	local _kept= _word _list
	eval "_list=\$$1"
	for _word in $_list; do
		[ "$_word" = "$2" ] || _kept="${_kept:+$_kept }$_word"
	done
	eval "$1=\$_kept"
}

# Called while a configuration is read; a script may define its own for the time.
reset_cb() {
	config_cb() { return 0; }
	option_cb() { return 0; }
	list_cb() { return 0; }
}
reset_cb

# The words of `uci export` are commands in the shell's syntax.
package() { return 0; }

config() {
	local kind=$1 name=$2
	CONFIG_SECTION=$name
	CONFIG_SECTIONS="${CONFIG_SECTIONS:+$CONFIG_SECTIONS }$name"
	eval "CONFIG_${name}_TYPE=\$kind"
	config_cb "$kind" "$name"
}

option() {
	local name=$1 value=$2
	eval "CONFIG_${CONFIG_SECTION}_$name=\$value"
	option_cb "$name" "$value"
}

list() {
	local name=$1 value=$2 prefix="CONFIG_${CONFIG_SECTION}_$1" length
	eval "length=\$((\${${prefix}_LENGTH:-0} + 1))"
	eval "${prefix}_LENGTH=\$length ${prefix}_ITEM$length=\$value"
	eval "$prefix=\"\${$prefix:+\$$prefix }\$value\""
	list_cb "$name" "$value"
}

config_load() {
	local text variable
	text="$(/sbin/uci -q -n export "$1")" || return 1
	for variable in $(set | sed -n 's/^\(CONFIG_[A-Za-z0-9_]*\)=.*/\1/p'); do
		unset "$variable"
	done
	eval "$text"
	CONFIG_SECTION=
	config_cb
}

# config_get VARIABLE SECTION OPTION [DEFAULT], or config_get SECTION OPTION to print it
config_get() {
	if [ -n "$3" ]; then
		eval "$1=\"\${CONFIG_${2}_$3:-\$4}\""
	else
		eval "echo \"\$CONFIG_${1}_$2\""
	fi
}

get_bool() {
	case $1 in
		1 | on | true | yes | enabled) echo 1 ;;
		0 | off | false | no | disabled) echo 0 ;;
		*) echo "$2" ;;
	esac
}

config_get_bool() {
	local _value
	config_get _value "$2" "$3" "$4"
	_value="$(get_bool "$_value" "$4")"
	eval "$1=\$_value"
}

config_set() {
	eval "CONFIG_${1}_$2=\$3"
}

# config_foreach FUNCTION [TYPE] [ARGUMENT...]: FUNCTION SECTION ARGUMENT...
config_foreach() {
	local _function=$1 _wanted=$2 _section _kind
	shift
	[ $# -gt 0 ] && shift
	for _section in $CONFIG_SECTIONS; do
		eval "_kind=\$CONFIG_${_section}_TYPE"
		[ -n "$_wanted" ] && [ "$_kind" != "$_wanted" ] && continue
		$_function "$_section" "$@"
	done
}

# config_list_foreach SECTION OPTION FUNCTION [ARGUMENT...]: FUNCTION ITEM ARGUMENT...
config_list_foreach() {
	local _prefix="CONFIG_${1}_$2" _function=$3 _number=1 _length _item
	shift 3
	eval "_length=\${${_prefix}_LENGTH:-0}"
	while [ $_number -le $_length ]; do
		eval "_item=\$${_prefix}_ITEM$_number"
		$_function "$_item" "$@"
		_number=$((_number + 1))
	done
}

. /lib/config/uci.sh
