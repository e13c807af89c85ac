# Asks the agent that is there, once it is sure to be root's, and prints: `fingerprint`, that of its key; `digest`, that of
# its executable; `is-known`, nothing, and fails if $fingerprint is not in its list; `store`, the directory that the one
# that runs was started with; `self-test`, what it says of this router.
#
# In: question, program, state; fingerprint; for the self-test stage, a directory that it may make.

ask() {
	close_tmp
	must_be_ours "$program"
	must_be_ours "$state"
	case $question in
	fingerprint) echo "fingerprint $("$program" --fingerprint --key "$state/key")" ;;
	digest) "$program" --digest ;;
	is-known) is_ours "$state/authorized" && grep -q "^$fingerprint" "$state/authorized" ;;
	store) pid=$(agent_pid) && option store ;;
	self-test)
		umask 077
		mkdir "$stage" || exit 1
		trap 'rm -rf "$stage"' EXIT
		"$program" --self-test --dir "$stage/test" 2>&1
		;;
	esac
}
ask </dev/null
