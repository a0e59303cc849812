"""A gh and a glab that keep their pull requests in a file and write down how they were called."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SCRIPT = """#!{python}
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
words = sys.argv[1:]
def option(*names):
    return next((words[at + 1] for at, word in enumerate(words) if word in names), None)
given = sys.stdin.read() if option("--body-file") == "-" else ""
environment = {{name: os.environ.get(name) for name in ("GH_PROMPT_DISABLED", "GIT_DIR")}}
call = dict(program={program!r}, argv=words, stdin=given, cwd=os.getcwd(), environment=environment)
with open(os.path.join(here, "calls"), "a") as log:
    print(json.dumps(call), file=log)
failing = os.path.join(here, "fail-" + words[1])
if os.path.exists(failing):
    code, _, text = open(failing).read().partition(" ")
    sys.stderr.write(text)
    sys.exit(int(code))
kept = os.path.join(here, "pulls")
pulls = json.load(open(kept)) if os.path.exists(kept) else []
head = option("--head", "--source-branch")
if words[1] == "create":
    number = len(pulls) + 1
    url = "https://{host}/team/project/{middle}/%d" % number
    branch = head.rpartition(":")[2]
    base, title, draft = option("--base", "--target-branch"), option("--title"), "--draft" in words
    if {program!r} == "gh":
        pulls.append(dict(number=number, url=url, title=title, isDraft=draft, baseRefName=base, headRefName=branch,
                          isCrossRepository=head != branch))
    else:
        pulls.append(dict(iid=number, web_url=url, title=title, draft=draft, target_branch=base, source_branch=branch,
                          source_project_id=1, target_project_id=1))
    json.dump(pulls, open(kept, "w"))
    print("Creating pull request for", branch)
    print(url)
elif words[1] == "list":
    print(json.dumps([one for one in pulls if head in (one.get("headRefName"), one.get("source_branch"))]))
elif "--web" not in words:
    found = [one for one in pulls if words[2] in (str(one.get("number")), str(one.get("iid")))]
    if not found:
        sys.exit("no pull requests found")
    print(json.dumps(found[0]))
"""


def fake_forge(folder: Path, program: str) -> Path:
    """Put a fake `gh` or `glab` into a folder, which is returned."""
    folder.mkdir(exist_ok=True)
    host, middle = ("github.example", "pull") if program == "gh" else ("gitlab.example", "-/merge_requests")
    path = folder / program
    path.write_text(SCRIPT.format(python=sys.executable, program=program, host=host, middle=middle))
    path.chmod(0o755)
    return folder


def calls(folder: Path) -> list[dict[str, Any]]:
    """How the programs of a folder were called, the first first."""
    log = folder / "calls"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def verbs(folder: Path) -> list[str]:
    """The program and the first two words of each call."""
    return [" ".join([one["program"], *one["argv"][:2]]) for one in calls(folder)]


def fail(folder: Path, verb: str, code: int, text: str) -> None:
    """Let one verb of the programs fail from now on."""
    (folder / f"fail-{verb}").write_text(f"{code} {text}")
