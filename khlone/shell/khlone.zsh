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

_khlone() {
	local verb= word at=2 options= names=
	local -a given
	while ((at < CURRENT)); do
		word=$words[at]
		case $word in
		--) _default; return ;;
		-C) ((at++)) ;;
		-*) ;;
		*) verb=$word; break ;;
		esac
		((at++))
	done
	if [[ $words[CURRENT-1] == -C ]]; then
		_directories
		return
	fi
	case $verb in
	'') options='@ROOT_OPTIONS@' names='@VERBS@' ;;
@CASES@
	esac
	if [[ $PREFIX == -* ]]; then
		given=(${=options})
	else
		case $names in
		@clones) given=(${(f)"$(command git-khlone _names 2>/dev/null)"}) ;;
		@trash) given=(${(f)"$(command git-khlone _names --trash 2>/dev/null)"}) ;;
		*) given=(${=names}) ;;
		esac
	fi
	compadd -a given
}
_git-khlone() { _khlone "$@"; }
zstyle -g _khlone_user ':completion:*:*:git:*' user-commands
if [[ $_khlone_user != *khlone:* ]]; then
	zstyle ':completion:*:*:git:*' user-commands $_khlone_user khlone:'a private place for every coding agent'
fi
unset _khlone_user
if (($+functions[compdef])); then compdef _khlone khlone git-khlone; fi
