# khlone for bash: completion of `khlone`, `git-khlone` and `git khlone`, `khlone cd`, and a name for the prompt.

khlone() {
	local file status
	file=$(mktemp "${TMPDIR:-/tmp}/khlone-cd.XXXXXX") || return
	KHLONE_CD_FILE=$file command khlone "$@"
	status=$?
	if [ -s "$file" ]; then builtin cd -- "$(cat -- "$file")" || status=$?; fi
	command rm -f -- "$file"
	return "$status"
}

# Sets khlone_clone to the name of the clone that the shell is in, else to that of the session, without starting a
# process: it reads .git and the clone's marker. It leaves $? as it was.
khlone_prompt() {
	local code=$? dir=${PWD-} line= name=
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

# What follows the word khlone, up to the cursor: the verb decides.
_khlone() {
	local cur=${COMP_WORDS[COMP_CWORD]} verb= word at first=0 options= names=
	COMPREPLY=()
	for ((at = 0; at < COMP_CWORD; at++)); do
		case ${COMP_WORDS[at]} in
		khlone | */khlone | git-khlone | */git-khlone) first=$((at + 1)); break ;;
		esac
	done
	for ((at = first; at < COMP_CWORD; at++)); do
		word=${COMP_WORDS[at]}
		case $word in
		--) compopt -o default 2>/dev/null; return ;;
		-C) at=$((at + 1)) ;;
		-*) ;;
		*) verb=$word; break ;;
		esac
	done
	if [ "${COMP_WORDS[COMP_CWORD - 1]}" = -C ]; then
		compopt -o dirnames 2>/dev/null
		return
	fi
	case $verb in
	'') options='@ROOT_OPTIONS@' names='@VERBS@' ;;
@CASES@
	esac
	case $cur in
	-*) names= ;;
	*)
		options=
		case $names in
		@clones) names=$(command git-khlone _names 2>/dev/null) ;;
		@trash) names=$(command git-khlone _names --trash 2>/dev/null) ;;
		esac
		;;
	esac
	local IFS=$' \n'
	COMPREPLY=($(compgen -W "$options $names" -- "$cur"))
}
complete -F _khlone khlone git-khlone
_git_khlone() { _khlone; }
