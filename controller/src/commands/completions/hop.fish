# Completes hop in fish. hop prints a word that fits on each line, with what it is after a tab; if none fits, fish completes the name
# of a file.
function __hop_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l candidates (hop complete fish (count $before) -- $before "$current" 2>/dev/null)
    if set -q candidates[1]
        printf '%s\n' $candidates
    else
        __fish_complete_path "$current"
    end
end
complete -c hop -f -a '(__hop_complete)'
