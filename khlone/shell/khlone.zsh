# khlone for zsh: completion of `khlone`, `git-khlone` and `git khlone`, `khlone cd`, and a name for the prompt.

khlone() {
	local file result
	file=$(mktemp "${TMPDIR:-/tmp}/khlone-cd.XXXXXX") || return
	KHLONE_CD_FILE=$file command khlone "$@"
	result=$?
	if [[ -s $file ]]; then builtin cd -- "$(<$file)" || result=$?; fi
	command rm -f -- "$file"
	return $result
}

# Sets khlone_clone to the name of the clone that the shell is in, else to that of the session, without starting a
# process: it reads .git and the clone's marker. It leaves $? as it was.
khlone_prompt() {
	local code=$? dir=${PWD-} line= name=
	emulate -L zsh
	khlone_clone=${KHLONE_NAME-}
	while [[ -n $dir && ! -e $dir/.git ]]; do dir=${dir%/*}; done
	if [[ -f $dir/.git ]]; then
		{ IFS= read -r line <"$dir/.git" || :; } 2>/dev/null
		line=${line#gitdir: }
		[[ $line == /* ]] || line=$dir/$line
		name=
		if [[ -f $line/khlone.json ]]; then
			{ IFS= read -r name <"$line/khlone.json" || :; } 2>/dev/null
			name=${name#*\"name\": \"}
			name=${name%%\"*}
		fi
		# Nothing that a prompt could read in another way.
		if [[ -n $name && $name != *[!A-Za-z0-9._/-]* ]]; then khlone_clone=$name; fi
	fi
	return $code
}

# git, in the repository that the command line names with -C: what it prints, a line each.
_khlone_ask() {
	command git $where "$@" 2>/dev/null
}

# What follows the word khlone, up to the cursor: the verb decides, and an option before the cursor.
_khlone() {
	local verb= word at=2 given=0 options= names=
	local -a found where
	# git's own -C, in which _arguments has quoted every backslash.
	[[ -n "$opt_args[-C]" ]] && where=(-C ${(Q)${(Q)opt_args[-C]}/#\~\//$HOME/})
	while ((at < CURRENT)); do
		word=$words[at]
		case $verb:$word in
		*:-- | new:-x | new:--exec)
			shift at words
			((CURRENT -= at))
			_normal
			return
			;;
		*:-C)
			((at++))
			where+=(-C ${(Q)words[at]/#\~\//$HOME/})
			;;
		*:-*) ;;
		:*) verb=$word ;;
		*) ((given++)) ;;
		esac
		((at++))
	done
	case $verb in
	'') options='@ROOT_OPTIONS@' names='@VERBS@' ;;
@CASES@
	esac
	# One list for each word after the verb, the last for all that follow.
	while ((given-- > 0)) && [[ $names == *';'* ]]; do names=${names#*;}; done
	names=${names%%;*}
	word=$words[CURRENT-1]
	if [[ $PREFIX == --*=* ]]; then
		word=${PREFIX%%=*}
		compset -P '*='
	fi
	if [[ $PREFIX == -* ]]; then
		names=$options
	else
		case $verb:$word in
		*:-C) names=@dirs ;;
@VALUES@
		esac
	fi
	case $names in
	@clones) found=(${(f)"$(_khlone_ask khlone _names)"}) ;;
	@agents) found=(@AGENTS@ ${(f)"$(_khlone_ask khlone _names --agents)"}) ;;
	@trash) found=(${(f)"$(_khlone_ask khlone _names --trash)"}) ;;
	@branches) found=(${(f)"$(_khlone_ask for-each-ref --count=1000 '--format=%(refname:lstrip=2)' "refs/heads/$PREFIX*" "refs/heads/$PREFIX*/**")"}) ;;
	@refs) found=(${(f)"$(_khlone_ask for-each-ref --count=1000 '--format=%(refname:lstrip=2)' refs/{heads,tags,remotes}/"$PREFIX"{'*','*/**'})"}) ;;
	@dirs) _directories; return ;;
	*) found=(${=names}) ;;
	esac
	compadd -a found
}
_git-khlone() { _khlone "$@"; }
zstyle -g _khlone_user ':completion:*:*:git:*' user-commands
if [[ $_khlone_user != *khlone:* ]]; then
	zstyle ':completion:*:*:git:*' user-commands $_khlone_user khlone:'a private place for every coding agent'
fi
unset _khlone_user
if (($+functions[compdef])); then
	compdef _khlone khlone git-khlone
else # not yet, or not at all: the first prompt tells
	_khlone_complete() {
		add-zsh-hook -d precmd _khlone_complete
		(($+functions[compdef])) || { autoload -Uz compinit && compinit -i; }
		compdef _khlone khlone git-khlone
	}
	autoload -Uz add-zsh-hook && add-zsh-hook precmd _khlone_complete
fi
