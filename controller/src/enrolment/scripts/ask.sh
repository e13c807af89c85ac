# Asks the agent that is there, once it is sure to be root's, and prints: `fingerprint`, that of its key; `next-fingerprint`,
# that of the key which is to follow, made if there is none; `digest`, that of its executable; `list`, who may connect;
# `is-known`, nothing, and fails if $fingerprint is not in that list; `cache-dir`, the directory that the one that runs was started
# with; `interface`, the one by which this login came; `self-test`, what it says of this router.
#
# In: question, program, state; fingerprint; for the self-test stage, a directory that it may make.

ask() {
	close_tmp
	must_be_ours "$program"
	must_be_ours "$state"
	case $question in
	fingerprint) echo "fingerprint $("$program" --fingerprint --key "$state/key")" ;;
	next-fingerprint) echo "fingerprint $("$program" --fingerprint --key "$state/key.next")" ;;
	digest) "$program" --digest ;;
	list)
		must_be_ours "$state/authorized"
		cat "$state/authorized"
		;;
	is-known)
		must_be_ours "$state/authorized"
		while IFS= read -r line || [ -n "$line" ]; do
			[ "$(key_of "$line")" != "$fingerprint" ] || exit 0
		done <"$state/authorized"
		exit 1
		;;
	cache-dir) pid=$(agent_pid) && option cache-dir ;;
	interface) "$program" --interface-to "${SSH_CONNECTION%% *}" ;;
	self-test)
		umask 077
		mkdir "$stage" || exit 1
		trap 'rm -rf "$stage"' EXIT
		# So that nobody clears it away meanwhile.
		echo $$ >"$stage/guard"
		"$program" --self-test --dir "$stage/test" 2>&1
		;;
	esac
}
ask </dev/null
