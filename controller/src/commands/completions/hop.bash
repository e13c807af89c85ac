# Completes hop in bash 4 and later. hop prints a word that fits on each line; if none fits, bash completes the name of a file.
_hop() {
    local IFS=$'\n'
    COMPREPLY=($(hop complete bash "$COMP_CWORD" -- "${COMP_WORDS[@]}" 2>/dev/null))
    # The value of an option such as --router= comes next.
    [[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != *= ]] || compopt -o nospace
}
complete -o bashdefault -o default -F _hop hop
