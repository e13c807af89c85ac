# Puts another agent in the place of the one that runs, which stays in $stage/old for the way back; after stop.sh.
#
# In: stage, program, next (the new executable).

fail() {
	echo "$*" >&2
	exit 1
}

upgrade() {
	end_agent
	cp "$program" "$stage/old.new" && mv "$stage/old.new" "$stage/old" || fail "cannot keep the old agent in $stage"
	# Not over the old file: flash may not have room for both, and an executable that runs cannot be written to.
	rm "$program"
	if ! cp "$next" "$program" || ! cmp "$next" "$program"; then
		rm -f "$program"
		cp "$stage/old" "$program"
		chmod 755 "$program"
		fail "cannot write $program: no space left?"
	fi
	chmod 755 "$program"
	sync
}
upgrade </dev/null
