#!/bin/sh
# The tour: three clones worked in at once, one merged, one squash-merged, one removed and restored.
#
#     make demo                 on a throw-away repository
#     make demo REPO=PATH       on a copy of the repository in PATH, at its HEAD
#
# It has an account of its own in a temporary folder: nothing of yours is read but REPO, and
# nothing of yours is changed. It ends with an error when any step does, and cleans up after itself.
set -eu
exec 2>&1 # answer and story in the order in which they come

tour=$(mktemp -d "${TMPDIR:-/tmp}/khlone-tour.XXXXXX")
tour=$(cd "$tour" && pwd -P)
pids=
finish() {
	status=$?
	trap - EXIT
	for pid in $pids; do kill "$pid" 2>/dev/null || :; done
	cd /
	rm -rf "$tour"
	if [ "$status" -ne 0 ]; then echo "tour: failed with exit $status" >&2; fi
	exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n# %s\n' "$*"; }
run() {
	printf '$ %s\n' "$1"
	eval "$1"
}
fail() {
	echo "tour: $*" >&2
	exit 1
}

# -- an account of its own -------------------------------------------------------------------

for name in $(env | sed -n -e 's/^\(GIT_[A-Za-z0-9_]*\)=.*/\1/p' -e 's/^\(KHLONE_[A-Za-z0-9_]*\)=.*/\1/p'); do
	unset "$name"
done
project=$tour/project
if [ -n "${REPO-}" ]; then
	# With your account still: your git settings may say that the repository is safe to read.
	folder=$(git -C "$REPO" rev-parse --show-toplevel 2>/dev/null ||
		git -C "$REPO" rev-parse --absolute-git-dir) || fail "no repository can be read in $REPO"
	git -C "$folder" rev-parse -q --verify 'HEAD^{commit}' >/dev/null || fail "no commit to start from in $folder"
	project=$tour/$(basename "$folder" .git)
	git clone -q --no-local --no-checkout --no-tags --template= "$folder" "$project"
fi

mkdir "$tour/home" "$tour/bin"
export HOME="$tour/home" XDG_STATE_HOME="$tour/home/state" XDG_CONFIG_HOME="$tour/home/config"
export XDG_CACHE_HOME="$tour/home/cache" PATH="$tour/bin:$PATH" LC_ALL=C
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_PAGER=cat GIT_TERMINAL_PROMPT=0
export GIT_AUTHOR_NAME='Tour Guide' GIT_AUTHOR_EMAIL=guide@example.invalid
export GIT_COMMITTER_NAME='Tour Guide' GIT_COMMITTER_EMAIL=guide@example.invalid

# A stand-in for a coding agent: writes a file in three steps and commits each of them.
cat >"$tour/bin/agent" <<'AGENT'
#!/bin/sh
set -eu
file=$1
mkdir -p "$(dirname "$file")"
for step in one two three; do
	printf '%s: step %s\n' "$2" "$step" >>"$file"
	git add --force -- "$file"
	git commit -q -m "$2: step $step" -- "$file"
done
echo "agent in $KHLONE_NAME: $(git rev-list --count "$KHLONE_TARGET"..HEAD) commits on $KHLONE_BRANCH"
AGENT
chmod +x "$tour/bin/agent"

if [ -n "${REPO-}" ]; then
	cd "$project"
	git remote remove origin
	case $(git symbolic-ref -q --short HEAD || :) in
	'') git checkout -q -b tour-start ;;
	greet | greet/* | docs | docs/* | cleanup | cleanup/*) git branch -m tour-start && git reset -q --hard ;;
	*) git reset -q --hard ;;
	esac
	say "a copy of $folder at its HEAD, $(git rev-parse --short HEAD), with $(git ls-files | wc -l | tr -d ' ') files"
else
	git init -q "$project"
	cd "$project"
	git symbolic-ref HEAD refs/heads/main
	printf '# Project\n\nA throw-away repository.\n' >README.md
	mkdir src && printf 'print("hello")\n' >src/app.py
	git add . && git commit -q -m 'first commit'
	say "a throw-away repository with $(git ls-files | wc -l | tr -d ' ') files"
fi
target=$(git symbolic-ref --short HEAD)
mkdir -p .git/info && printf '*.log\n' >>.git/info/exclude
start=$(git rev-parse HEAD)
git status --porcelain >"$tour/status.txt"

# -- the tour --------------------------------------------------------------------------------

say 'a private place for each of three agents: a worktree, a branch, a config dir'
run 'git khlone new greet'
run 'git khlone new docs'
run 'git khlone new cleanup'

say 'all three work at once'
run 'git khlone exec greet -- agent tour/greet.txt greet &'
pids="$pids $!"
run 'git khlone exec docs -- agent tour/guide.md docs &'
pids="$pids $!"
run 'git khlone exec cleanup -- agent tour/cleanup.txt cleanup &'
pids="$pids $!"
printf '$ wait\n'
for pid in $pids; do wait "$pid"; done
pids=
run 'git khlone list'

say 'one comes back as a merge, one as a single commit'
run 'git khlone merge greet'
run 'git khlone merge --squash docs'

say 'the third is in the middle of something: an edit, a new file, an ignored file'
cleanup=$(git khlone path cleanup)
run 'git khlone exec cleanup -- sh -c "echo half a thought >>tour/cleanup.txt; echo new >idea.txt; echo seen >run.log"'
cp "$cleanup/tour/cleanup.txt" "$tour/before.txt"
printf '$ git khlone remove cleanup\n'
if git khlone remove cleanup; then fail 'a clone with uncommitted work was removed without --force'; fi

say 'told to, it goes to the trash, and comes back as it was'
run 'git khlone remove --force cleanup'
[ ! -e "$cleanup" ] || fail "$cleanup is still there"
run 'git khlone trash'
run 'git khlone restore cleanup'
run 'git khlone exec cleanup -- git status --short --ignored'
run 'git khlone exec cleanup -- cat idea.txt run.log'
run 'git khlone exec cleanup -- tail -n 1 tour/cleanup.txt'
cmp "$tour/before.txt" "$(git khlone path cleanup)/tour/cleanup.txt" || fail 'the edit did not come back'

say 'and all is in order'
run 'git khlone doctor'
run 'git log --graph --oneline -n 8'

[ "$(git rev-list --count --merges "$start..$target")" = 1 ] || fail 'greet did not land as one merge'
[ "$(git rev-list --count --first-parent "$start..$target")" = 2 ] || fail 'docs did not land as one commit'
git status --porcelain | cmp - "$tour/status.txt" || fail 'the checkout has changes that it did not have'
