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

# The words after khlone up to the cursor; status 1 when the line is of another command, or of one that khlone is to run.
function __khlone_words
    set -l words (commandline -opc)
    switch $words[1]
        case git
            set -e words[1]
            while test (count $words) -gt 1; and test "$words[1]" = -C
                set -e words[1..2]
            end
            test "$words[1]" = khlone
            or return 1
            set -e words[1]
        case khlone git-khlone '*/khlone' '*/git-khlone'
            set -e words[1]
        case '*'
            return 1
    end
    contains -- -- $words
    and return 1
    set -q words[1]
    and printf '%s\n' $words
    return 0
end

# The verb, and the words after it that are no options.
function __khlone_line
    set -l words (__khlone_words)
    or return 1
    set -l skip 0
    set -l verb
    for word in $words
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case -C
                set skip 1
            case '-*'
                test "$verb" = new
                and contains -- $word -x --exec
                and return 1
            case '*'
                set verb $word
                echo $word
        end
    end
    set -q verb[1]
end

# git, in the repository that the command line names with -C.
function __khlone_ask
    set -l where
    set -l take 0
    for word in (commandline -opc)
        if test $take = 1
            set -a where -C (string replace -r '^~/' "$HOME/" -- $word)
            set take 0
        else if test "$word" = -C
            set take 1
        end
    end
    command git $where $argv 2>/dev/null
end

function __khlone_refs
    set -l start (string replace -r '^--[a-z]+=' '' -- (commandline -ct))
    set -l asked
    for kind in $argv
        set -a asked "refs/$kind/$start*" "refs/$kind/$start*/**"
    end
    __khlone_ask for-each-ref --count=1000 '--format=%(refname:lstrip=2)' $asked
end

function __khlone_needs_verb
    __khlone_words >/dev/null
    and not __khlone_line >/dev/null
end

function __khlone_is_verb
    set -l line (__khlone_line)
    and test "$line[1]" = $argv[1]
end

# Whether so many words follow the verb; with a second number, from the first to that.
function __khlone_is_at
    set -l line (__khlone_line)
    and test "$line[1]" = $argv[1]
    and test (count $line) -gt $argv[2]
    and test (count $line) -le (math $argv[-1] + 1)
end

for __khlone_command in khlone git-khlone git
@CASES@
end
set -e __khlone_command
