# What start_service calls to say what is to run. A service becomes one message to procd, which is put together here as JSON:
# each list of members is a variable that grows by `,"name":value`.

_procd_quote() {
	local text=$1
	text="${text//\\/\\\\}"
	text="${text//\"/\\\"}"
	text="${text//	/\\t}"
	text="${text//
/\\n}"
	_quoted="\"$text\""
}

# _procd_member VARIABLE NAME JSON
_procd_member() {
	_procd_quote "$2"
	eval "$1=\"\${$1},\$_quoted:\$3\""
}

# Sets _array to the words as a JSON array.
_procd_array() {
	local word
	_array=
	for word; do
		_procd_quote "$word"
		_array="$_array,$_quoted"
	done
	_array="[${_array#,}]"
}

# Sets _object to words NAME=VALUE as a JSON object.
_procd_object() {
	local word members=
	for word; do
		_procd_quote "${word#*=}"
		_procd_member members "${word%%=*}" "$_quoted"
	done
	_object="{${members#,}}"
}

procd_open_service() {
	_procd_service=$1
	_procd_script=$2
	_procd_instances= _procd_triggers= _procd_data= _procd_count=0
	unset _procd_instance
}

procd_close_service() {
	local method="${1:-set}" name script
	if type service_triggers >/dev/null 2>&1; then service_triggers; fi
	if type service_data >/dev/null 2>&1; then service_data; fi
	_procd_quote "$_procd_service"
	name=$_quoted
	_procd_quote "$_procd_script"
	script=$_quoted
	ubus call service "$method" "{\"name\":$name,\"script\":$script,\"instances\":{${_procd_instances#,}},\"triggers\":[${_procd_triggers#,}],\"data\":{${_procd_data#,}}}"
}

# The whole of `start`. With an argument, that instance is added to what runs.
_procd_register() {
	local method=set
	[ -n "$2" ] && method=add
	procd_lock
	procd_open_service "$(service_name)" "/etc/init.d/$(service_name)"
	"$@"
	procd_close_service $method
}

procd_open_instance() {
	_procd_count=$((_procd_count + 1))
	_procd_instance="${1:-instance$_procd_count}"
	_procd_params=" "
	_procd_mdns=
}

# Each parameter is a variable of its own until the instance is closed: it may be appended to.
procd_set_param() {
	local kind=$1 word
	shift
	case $kind in
		respawn)
			if [ $# -eq 0 ]; then
				set -- "$(uci_get system @service[0] respawn_threshold 3600)" \
					"$(uci_get system @service[0] respawn_timeout 5)" \
					"$(uci_get system @service[0] respawn_retry 5)"
			fi
			;;
	esac
	list_contains _procd_params "$kind" || _procd_params="$_procd_params$kind "
	eval "_procd_param_$kind="
	procd_append_param "$kind" "$@"
}

procd_append_param() {
	local kind=$1 word
	shift
	list_contains _procd_params "$kind" || {
		_procd_params="$_procd_params$kind "
		eval "_procd_param_$kind="
	}
	for word; do
		case $kind in
			env | data | limits)
				_procd_quote "${word#*=}"
				_procd_member "_procd_param_$kind" "${word%%=*}" "$_quoted"
				;;
			command | file | netdev | respawn | watch | error)
				_procd_quote "$word"
				eval "_procd_param_$kind=\"\${_procd_param_$kind},\$_quoted\""
				;;
			stdout | stderr | no_new_privs)
				if [ "$word" = 1 ]; then eval "_procd_param_$kind=true"; else eval "_procd_param_$kind=false"; fi
				;;
			reload_signal)
				eval "_procd_param_$kind=$(kill -l "$word")"
				;;
			nice | term_timeout)
				eval "_procd_param_$kind=\$word"
				;;
			*)
				_procd_quote "$word"
				eval "_procd_param_$kind=\$_quoted"
				;;
		esac
	done
}

procd_close_instance() {
	local kind value members=
	if [ -n "$_procd_mdns" ]; then
		procd_append_param data
		_procd_member _procd_param_data mdns "{${_procd_mdns#,}}"
	fi
	for kind in $_procd_params; do
		eval "value=\$_procd_param_$kind"
		case $kind in
			env | data | limits) value="{${value#,}}" ;;
			command | file | netdev | respawn | watch | error) value="[${value#,}]" ;;
		esac
		[ -n "$value" ] && _procd_member members "$kind" "$value"
	done
	_procd_member _procd_instances "$_procd_instance" "{${members#,}}"
	unset _procd_instance
}

procd_add_instance() {
	procd_open_instance
	procd_set_param command "$@"
	procd_close_instance
}

# Triggers. A delay of a second, as everywhere.
procd_open_trigger() { return 0; }
procd_close_trigger() { return 0; }

# procd_add_config_trigger EVENT PACKAGE COMMAND...
procd_add_config_trigger() {
	local event=$1 package=$2
	shift 2
	_procd_array "$event"
	event="${_array#[}"
	_procd_array run_script "$@"
	_procd_quote "$package"
	_procd_triggers="$_procd_triggers,[${event%]},[\"if\",[\"eq\",\"package\",$_quoted],$_array],1000]"
}

# procd_add_interface_trigger EVENT INTERFACE COMMAND...
procd_add_interface_trigger() {
	local event=$1 interface=$2
	shift 2
	_procd_array "$event"
	event="${_array#[}"
	_procd_array run_script "$@"
	_procd_quote "$interface"
	_procd_triggers="$_procd_triggers,[${event%]},[\"if\",[\"eq\",\"interface\",$_quoted],$_array],1000]"
}

# procd_add_raw_trigger EVENT DELAY COMMAND...
procd_add_raw_trigger() {
	local event=$1 delay=$2
	shift 2
	_procd_quote "$event"
	_procd_array run_script "$@"
	_procd_triggers="$_procd_triggers,[$_quoted,$_array,$delay]"
}

procd_add_reload_trigger() {
	local package
	for package; do
		procd_add_config_trigger config.change "$package" "$_procd_script" reload
	done
}

procd_add_reload_interface_trigger() {
	procd_add_interface_trigger "interface.*" "$1" "$_procd_script" reload
}

# procd_add_mdns SERVICE PROTOCOL PORT [NAME=VALUE...]: data of the instance, or of the service outside of one
procd_add_mdns() {
	local service=$1 protocol=$2 port=$3 text=
	shift 3
	[ $# -gt 0 ] && _procd_array "$@" && text=",\"txt\":$_array"
	_procd_quote "_$service._$protocol.local"
	_procd_member _procd_mdns "${service}_$port" "{\"service\":$_quoted,\"port\":$port$text}"
	if [ -z "$_procd_instance" ]; then
		_procd_member _procd_data mdns "{${_procd_mdns#,}}"
		_procd_mdns=
	fi
}

procd_open_data() { return 0; }
procd_close_data() { return 0; }
procd_open_validate() { return 0; }
procd_close_validate() { return 0; }
procd_add_validation() { return 0; }

# There is no /sbin/ujail here: a jail that is not required is silently none.
procd_add_jail() { return 0; }
procd_add_jail_mount() { return 0; }
procd_add_jail_mount_rw() { return 0; }

# One run of a script at a time.
procd_lock() {
	mkdir -p /var/lock
	exec 1000>"/var/lock/procd_$(service_name).lock"
	flock 1000
}

_procd_name() {
	_procd_quote "$1"
	_named="{\"name\":$_quoted"
	if [ -n "$2" ]; then
		_procd_quote "$2"
		_named="$_named,\"instance\":$_quoted"
	fi
}

procd_kill() {
	_procd_name "$1" "$2"
	ubus call service delete "$_named}" 2>/dev/null
}

# procd_send_signal SERVICE [INSTANCE] [SIGNAL]
procd_send_signal() {
	local number=1
	case $3 in
		'') ;;
		*[!0-9]*) number="$(kill -l "$3")" ;;
		*) number=$3 ;;
	esac
	case $2 in
		'*') _procd_name "$1" ;;
		*) _procd_name "$1" "$2" ;;
	esac
	ubus call service signal "$_named,\"signal\":$number}"
}

# Sets _total and _running to the numbers of a service's instances.
_procd_instances_of() {
	local list
	_procd_name "$1"
	list="$(ubus call service list "$_named}")"
	_known=0
	case $list in *"\"$1\": {"*) _known=1 ;; esac
	_total="$(echo "$list" | grep -c '"running": ')"
	_running="$(echo "$list" | grep -c '"running": true')"
}

procd_running() {
	_procd_instances_of "$1"
	[ "$_running" -gt 0 ]
}

_procd_status() {
	_procd_instances_of "$1"
	if [ "$_known" = 0 ]; then
		echo inactive
		return 3
	elif [ "$_total" = 0 ]; then
		echo "active with no instances"
	elif [ "$_running" = 0 ]; then
		echo "not running"
		return 5
	elif [ "$_running" = "$_total" ]; then
		echo running
	else
		echo "running ($_running/$_total)"
	fi
	return 0
}

# uci_validate_section and its like need the list of types; a script that calls them gets its options unchecked.
# uci_load_validate PACKAGE TYPE SECTION FUNCTION OPTION:TYPE[:DEFAULT]...
uci_load_validate() {
	local _package=$1 _kind=$2 _name=$3 _call=$4
	shift 4
	uci_validate_section "$_package" "$_kind" "$_name" "$@"
	"$_call" "$_name" 0
}

uci_validate_section() {
	local _package=$1 _name=$3 _word _option _default
	shift 3
	for _word; do
		_option="${_word%%:*}"
		_default="${_word#*:}"
		case $_default in
			*:*) _default="${_default##*:}" ;;
			*) _default= ;;
		esac
		eval "$_option=\"\$(uci_get \"\$_package\" \"\$_name\" \"\$_option\" \"\$_default\")\""
	done
	return 0
}
