# Runs while hop enrols a router or replaces its agent: if the controller, or the link to it, is gone before it sends
# `commit`, the scripts that follow undo its changes. Any other line that it sends is a sign of life.
#
# In: stage, patience (seconds), and the variables of the scripts that follow, which set `failed=1` if they could not
# undo everything.

# The reader of the messages below may be gone.
trap '' PIPE
umask 077
close_tmp
clear_stages
mkdir "$stage" || exit 1
trap 'code=$?; rm -rf "$stage"; exit ${failed:-$code}' EXIT
# While this process lives, no other enrolment may build on files that this one may still remove.
echo $$ >"$stage/guard" || exit 1
for other in $(stages); do
	[ "$other" = "$stage" ] || ! is_guarded "$other" || fail "another enrolment is under way"
done
# A shell whose `read` has no time limit sees at least the end of the connection.
limit=
echo | { read -t 1 line; } 2>/dev/null && limit="-t $patience"
echo ready
while read $limit line; do
	case $line in
	commit) exit 0 ;;
	undo) break ;;
	esac
done
# Another process of this enrolment, such as an upload on a dead link, would outlive this one. A process that has
# finished has removed its id.
kill -9 "$(cat "$stage/busy" 2>/dev/null)" 2>/dev/null
