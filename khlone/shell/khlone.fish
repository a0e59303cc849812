# khlone for fish: completion of `khlone`, `git-khlone` and `git khlone`, `khlone cd`, and a name for the prompt.

function khlone --wraps git-khlone
    set -l file (mktemp (test -n "$TMPDIR"; and echo $TMPDIR; or echo /tmp)/khlone-cd.XXXXXX)
    or return
    env KHLONE_CD_FILE=$file khlone $argv
    set -l result $status
    if test -s $file
        builtin cd (cat $file)
        or set result $status
    end
    command rm -f $file
    return $result
end

# Sets khlone_clone to the name of the clone that the shell is in, else to that of the session, without starting a
# process: it reads .git and the clone's marker. It leaves $status as it was.
function khlone_prompt
    set -l code $status
    set -l dir $PWD
    set -g khlone_clone $KHLONE_NAME
    while test -n "$dir"; and not test -e "$dir/.git"
        set dir (string replace -r '/[^/]*$' '' -- "$dir")
    end
    if test -f "$dir/.git"
        read -l line <"$dir/.git"
        set line (string replace -r '^gitdir: ' '' -- "$line")
        string match -q '/*' -- "$line"
        or set line "$dir/$line"
        if test -f "$line/khlone.json"
            read -l marker <"$line/khlone.json"
            # Nothing that a prompt could read in another way.
            set -l found (string match -r '"name": "([A-Za-z0-9._/-]+)"' -- "$marker")
            and set -g khlone_clone $found[2]
        end
    end
    return $code
end

# The words after khlone; an empty answer and status 1 when the line is of another command.
function __khlone_words
    set -l words (commandline -opc)
    switch $words[1]
        case git
            test "$words[2]" = khlone
            or return 1
            set -e words[1..2]
        case khlone git-khlone '*/khlone' '*/git-khlone'
            set -e words[1]
        case '*'
            return 1
    end
    set -q words[1]
    and printf '%s\n' $words
    return 0
end

function __khlone_verb
    set -l words (__khlone_words)
    or return 1
    set -l skip 0
    for word in $words
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case -C
                set skip 1
            case '-*'
            case '*'
                echo $word
                return 0
        end
    end
    return 1
end

function __khlone_needs_verb
    __khlone_words >/dev/null
    and not __khlone_verb >/dev/null
end

function __khlone_is_verb
    set -l verb (__khlone_verb)
    and contains -- $verb $argv
end

for __khlone_command in khlone git-khlone git
@CASES@
end
set -e __khlone_command
