# Stands by while a router is enrolled or its agent replaced: should the controller, or the link to it, be gone before it
# says `commit`, the scripts that follow take back what it has done. What it says on the way is a sign of life.
#
# In: stage, patience (seconds); what the scripts want that follow. They say by `failed=1` that not all could be taken back.

# Whoever would have read what is said below may be gone.
trap '' PIPE
umask 077
close_tmp
clear_stages
mkdir "$stage" || exit 1
trap 'code=$?; rm -rf "$stage"; exit ${failed:-$code}' EXIT
# As long as this lives, nobody else may build on what it may yet remove.
echo $$ >"$stage/guard" || exit 1
for other in $(stages); do
	[ "$other" = "$stage" ] || ! is_guarded "$other" || fail "another enrolment is under way"
done
# A shell whose read knows no time limit sees the end of the connection at least.
limit=
echo | { read -t 1 line; } 2>/dev/null && limit="-t $patience"
echo ready
while read $limit line; do
	case $line in
	commit) exit 0 ;;
	undo) break ;;
	esac
done
# What still runs for this enrolment, an upload on a dead link perhaps, would go on after us. Whoever is done has taken
# its number away.
kill -9 "$(cat "$stage/busy" 2>/dev/null)" 2>/dev/null
