"""Makes docs/picture.svg, the picture in the README: a real session, recorded and drawn.

    .venv/bin/python docs/picture.py

Every command shown is run on a throw-away repository by the khlone of the environment
that runs this file; only its temporary folder is shown as `~`.
"""

from __future__ import annotations

import html
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PICTURE = Path(__file__).with_suffix(".svg")
SESSION = (
    "git khlone new fix-login",
    "git khlone new faster-search",
    'git khlone exec fix-login -- sh -c "echo fixed >>login.py && git commit -qam fix"',
    'git khlone exec faster-search -- sh -c "echo fast >>search.py && git commit -qam fast && touch idea.txt"',
    "git khlone list",
    "git khlone merge fix-login",
    "git khlone remove faster-search",
    "git khlone remove --force faster-search",
    "git khlone restore faster-search",
)
_LINE, _LEFT, _TOP, _CHARACTER = 19, 18, 52, 8.0


def record() -> list[tuple[str, str]]:
    """The lines of the session, each with its kind: command, answer or story."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(os.path.realpath(folder))
        environment = {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        (home / ".gitconfig").write_text(
            "[user]\n\tname = A\n\temail = a@example.invalid\n[init]\n\tdefaultBranch = main\n"
        )
        project = home / "shop"
        project.mkdir()
        for file in ("login.py", "search.py"):
            (project / file).write_text("begin\n")
        for argv in (("git", "init", "-q"), ("git", "add", "."), ("git", "commit", "-qm", "first")):
            subprocess.run(argv, cwd=project, env=environment, check=True)
        lines = []
        for command in SESSION:
            lines.append(("command", command))
            done = subprocess.run(
                command, shell=True, cwd=project, env=environment, capture_output=True, text=True, check=False
            )
            for kind, text in (("story", done.stderr), ("answer", done.stdout)):
                lines += [(kind, line.replace(str(home), "~")) for line in text.splitlines()]
        return lines


def draw(lines: list[tuple[str, str]]) -> str:
    """The lines as a terminal window in SVG."""
    width = int(max(len(text) + 2 for _, text in lines) * _CHARACTER + 2 * _LEFT)
    height = _TOP + len(lines) * _LINE + 14
    colours = {"command": "#e6edf3", "answer": "#7ee787", "story": "#8b949e"}
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="A terminal session with git khlone">',
        f'<rect width="{width}" height="{height}" rx="10" fill="#0d1117"/>',
        *(
            f'<circle cx="{24 + 20 * at}" cy="22" r="6" fill="{fill}"/>'
            for at, fill in enumerate(("#ff5f56", "#ffbd2e", "#27c93f"))
        ),
        '<g font-family="ui-monospace, SFMono-Regular, Menlo, DejaVu Sans Mono, monospace" font-size="13" '
        'xml:space="preserve">',
    ]
    for at, (kind, text) in enumerate(lines):
        shown = html.escape(("$ " if kind == "command" else "") + text)
        weight = ' font-weight="bold"' if kind == "command" else ""
        y = _TOP + at * _LINE
        drawn.append(f'<text x="{_LEFT}" y="{y}" fill="{colours[kind]}"{weight}>{shown}</text>')
    return "\n".join([*drawn, "</g>", "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(record()), encoding="utf-8")
    print(PICTURE)
