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

# git, in the repository that the command line names with -C: what it prints, a line each.
_khlone_ask() {
	local word plain=() # without quotes, as far as a path needs it
	for word in "${_khlone_where[@]}"; do
		case $word in '~/'*) word=$HOME/${word#\~/} ;; esac
		plain+=("${word//[\\\'\"]/}")
	done
	command git "${plain[@]}" "$@" 2>/dev/null
}

# What follows -- or -x is a command, and is completed as if it stood alone.
_khlone_command() {
	if declare -F _comp_command_offset >/dev/null; then
		_comp_command_offset "$1"
	elif declare -F _command_offset >/dev/null; then
		_command_offset "$1"
	else
		compopt -o default 2>/dev/null
	fi
}

# What follows the word khlone, up to the cursor: the verb decides, and an option before the cursor.
_khlone() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb= word at=1 given=0
	local options= names= _khlone_where=()
	COMPREPLY=()
	if [[ ${1-} == git ]]; then # its own -C, up to the word khlone
		for (( ; at < COMP_CWORD; at++)); do
			case ${COMP_WORDS[at]} in
			-C) _khlone_where+=(-C "${COMP_WORDS[++at]}") ;;
			khlone) break ;;
			esac
		done
		at=$((at + 1))
	fi
	for (( ; at < COMP_CWORD; at++)); do
		word=${COMP_WORDS[at]}
		case $verb:$word in
		*:-- | new:-x | new:--exec) _khlone_command $((at + 1)); return ;;
		*:-C) _khlone_where+=(-C "${COMP_WORDS[++at]}") ;;
		*:-*) ;;
		:*) verb=$word ;;
		*) given=$((given + 1)) ;;
		esac
	done
	if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
	case $verb in
	'') options='@ROOT_OPTIONS@' names='@VERBS@' ;;
@CASES@
	esac
	# One list for each word after the verb, the last for all that follow.
	while ((given-- > 0)) && [[ $names == *';'* ]]; do names=${names#*;}; done
	names=${names%%;*}
	case $cur in
	-*) names=$options ;;
	*)
		case $verb:$prev in
		*:-C) names=@dirs ;;
@VALUES@
		esac
		;;
	esac
	case $names in
	@clones) names=$(_khlone_ask khlone _names) ;;
	@agents) names="@AGENTS@ $(_khlone_ask khlone _names --agents)" ;;
	@trash) names=$(_khlone_ask khlone _names --trash) ;;
	@branches) names=$(_khlone_ask for-each-ref --count=1000 '--format=%(refname:lstrip=2)' "refs/heads/$cur*" "refs/heads/$cur*/**") ;;
	@refs) names=$(_khlone_ask for-each-ref --count=1000 '--format=%(refname:lstrip=2)' refs/{heads,tags,remotes}/"$cur"{'*','*/**'}) ;;
	@dirs) compopt -o dirnames 2>/dev/null; return ;;
	esac
	# Compared, never evaluated; and nothing that the command line could read in another way.
	while IFS= read -r word; do
		if [[ -n $word && $word == "$cur"* && $word != *[!A-Za-z0-9._/@+,-]* ]]; then COMPREPLY+=("$word"); fi
	done <<<"${names//[[:space:]]/$'\n'}"
}
complete -F _khlone khlone git-khlone
_git_khlone() { _khlone git; }
