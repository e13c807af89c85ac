#compdef hop
# Completes hop in zsh. hop prints a word that fits on each line, with what it is after a colon; if none fits, zsh completes the name
# of a file.
_hop() {
    local -a candidates
    candidates=("${(@f)$(hop complete zsh $((CURRENT - 1)) -- "${words[@]}" 2>/dev/null)}")
    if [[ -n ${candidates[1]} ]]; then
        _describe hop candidates
    else
        _files
    fi
}
# As a file of its own in $fpath, zsh runs this as the function of the same name; from .zshrc, it registers it.
if [[ ${funcstack[1]} == _hop ]]; then
    _hop "$@"
else
    compdef _hop hop
fi
