"""Makes docs/images/*.png, the pictures of a real terminal in the README.

    .venv/bin/python docs/screenshots.py

Needs xterm, Xvfb, ImageMagick and the font DejaVu Sans Mono (Debian: xterm xvfb imagemagick
fonts-dejavu-core). Every command shown is run in an xterm, on a throw-away repository in
/tmp/demo, by the khlone of the environment that runs this file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
#: Paths of it are seen in the pictures. Nothing may be there.
DEMO = Path("/tmp/demo")
_LIMIT_S = 180.0
_ROWS = 40

#: What has happened before the first picture; its output is not shown.
BEFORE = """
git init -q project && cd project
mkdir src && echo 'open()' >src/login.py && echo 'scan()' >src/search.py && echo '# Shop' >README.md
git add . && git commit -qm 'first commit'
for name in login oauth search docs prices; do git khlone new $name; done
edit() { git khlone exec "$1" -- sh -c "echo '$3' >$2 && git add $2 && git commit -qm '$1: $3'"; }
edit login src/login.py 'ask()'
edit oauth src/login.py 'oauth()'
edit search src/search.py 'index()'
edit search src/search.py 'index(); rank()'
edit docs README.md '# Shop, with search'
edit prices src/prices.py 'assert false'
git khlone merge docs
git khlone exec login -- sh -c "echo '# half a thought' >>src/login.py; echo why >NOTES.md"
git worktree add -q ../by-hand -b by-hand && git khlone adopt ../by-hand
git khlone new stray && rm -rf "$(git khlone path stray)"
git config khlone.gate.test 'sh -c "! grep -rn false src"'
"""

#: Each picture: its name and the commands typed in it, one after the other.
PICTURES: Mapping[str, Sequence[str]] = {
    "list": (
        "cd /tmp/demo/project",
        "git khlone list",
        "git khlone conflicts",
    ),
    "merge": (
        "git khlone queue add search prices",
        "git khlone queue run",
        "git khlone merge login oauth",
        "git log --graph --oneline",
    ),
}


def take(environment: Mapping[str, str], name: str, commands: Sequence[str]) -> None:
    """Type the commands in an xterm and write what it shows, cut to what is written on it."""
    scene = DEMO / f"{name}.sh"
    done = DEMO / f"{name}.done"
    # The answer of the terminal to the last escape sequence says that the terminal has drawn all that came before.
    scene.write_text(
        "\n".join(
            (
                "stty -echo",
                *(f"printf '$ %s\\n' '{command}'; {command}" for command in commands),
                "printf '$ \\033[6n'; IFS= read -r -d R _",
                f": >{done}; sleep {_LIMIT_S:.0f}",
            )
        )
    )
    argv = ["xterm", "-geometry", f"116x{_ROWS}+0+0", "-b", "14", "-bw", "0", "+sb", "-fa", "DejaVu Sans Mono"]
    argv += ["-fs", "11", "-fg", "#d0d7de", "-bg", "#0d1117", "-xrm", "XTerm*cursorBlink:false", "-e", "bash"]
    where = DEMO / "project"
    with subprocess.Popen([*argv, str(scene)], cwd=where, env=environment) as terminal:
        try:
            deadline = time.monotonic() + _LIMIT_S
            while not done.exists():
                if terminal.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{name}: the terminal has not come to its end")
                time.sleep(0.1)
            image = IMAGES / f"{name}.png"
            cut = ["-trim", "+repage", "-trim", "+repage", "-bordercolor", "#0d1117", "-border", "16"]
            small = ["-colors", "48", "-depth", "8", "-strip", "-define", "png:exclude-chunks=date,time"]
            whole = DEMO / f"{name}.png"
            subprocess.run(["import", "-window", "root", str(whole)], env=environment, check=True)
            subprocess.run(["convert", str(whole), *cut, *small, str(image)], env=environment, check=True)
            print(f"{image} {image.stat().st_size} bytes")
        finally:
            terminal.terminate()


@contextlib.contextmanager
def display() -> Iterator[str]:
    """An X server of our own without a screen, and its name."""
    reader, writer = os.pipe()
    argv = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1400x1000x24", "-nolisten", "tcp"]
    with subprocess.Popen(argv, pass_fds=(writer,), stderr=subprocess.DEVNULL) as server:
        os.close(writer)
        try:
            with os.fdopen(reader) as stream:
                number = stream.readline().strip()
            if not number:
                raise SystemExit("Xvfb does not start")
            yield f":{number}"
        finally:
            server.terminate()


def main() -> None:
    """Make all pictures anew."""
    missing = [name for name in ("xterm", "Xvfb", "import", "convert", "bash") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    DEMO.mkdir(mode=0o700)
    try:
        home = DEMO / "home"
        home.mkdir()
        (home / ".gitconfig").write_text(
            "[user]\n\tname = A\n\temail = a@example.invalid\n[init]\n\tdefaultBranch = main\n[color]\n\tui = auto\n"
        )
        environment = {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_PAGER": "cat",
        }
        with tempfile.TemporaryFile() as told:
            argv = ["sh", "-euc", BEFORE]
            if subprocess.run(argv, cwd=DEMO, env=environment, stdout=told, stderr=told, check=False).returncode:
                told.seek(0)
                raise SystemExit(told.read().decode())
        IMAGES.mkdir(exist_ok=True)
        with display() as name:
            for picture, commands in PICTURES.items():
                take({**environment, "DISPLAY": name}, picture, commands)
    finally:
        shutil.rmtree(DEMO)


if __name__ == "__main__":
    main()
