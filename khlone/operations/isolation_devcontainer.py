"""Which image does a clone have whose repository has a devcontainer.json, and how is it made?

    <private folder of the clone>/devcontainer/made.json     the engine, the image, and what it was made from
                                              /log           what was said when it was made

The devcontainer CLI reads the file, builds the image, and runs the commands that are to run
once, in a container that is then kept as the clone's image. How any container is started is
khlone's to say, as for every other image: of the file, and of what images say of
themselves, only what `_USED` names counts. All of it is read as it was committed, from a
copy that no session can change meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from khlone import files, process
from khlone.app import App
from khlone.errors import IsolationMissing, KhloneError
from khlone.model import CloneRecord
from khlone.operations import isolation_left, journal
from khlone.operations.isolation_left import ENGINE_S
from khlone.values import dataclass

_LEVEL = "container"
_FILES = (".devcontainer/devcontainer.json", ".devcontainer.json")
#: How long an image may take to build, and its commands to run, in seconds.
_MAKING_S = 1800.0
_COMMANDS = ("onCreateCommand", "updateContentCommand", "postCreateCommand")
_USED = {"image", "build", "dockerFile", "context", "containerEnv", "remoteEnv", *_COMMANDS}
#: What means nothing here, or is so anyway: the user, the place and the network are those of the clone.
_MOOT = {
    *("$schema", "name", "customizations", "configFilePath", "hostRequirements", "waitFor", "userEnvProbe"),
    *("remoteUser", "containerUser", "updateRemoteUserUID", "workspaceFolder", "overrideCommand", "shutdownAction"),
    *("forwardPorts", "portsAttributes", "otherPortsAttributes"),
}
_USED_TO_BUILD = {"dockerfile", "dockerFile", "context", "args", "target"}
#: Where the CLI notes in a container which commands it has run.
_NOTES = "/tmp/.khlone-devcontainer"  # noqa: S108
#: What engines give a container whose image has none.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IDLE = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The image of a clone, and the variables that its repository wants in it."""

    image: str
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Making:
    """What every step of making an image needs; `folder` is gone when it is made."""

    app: App
    clone: CloneRecord
    cli: str
    engine: str
    commit: str
    #: What a container of the clone is started with.
    walls: Sequence[str]
    folder: Path
    log: Path

    def run(self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None) -> process.Completed:
        """Run a program, which says what it does into the log too."""
        outside = {**isolation_left.outside(self.app), "TMPDIR": os.fspath(self.folder)}
        given = outside if environment is None else environment
        with open(self.log, "ab") as log:

            def heard(said: bytes) -> None:
                log.write(said)

            return process.run(argv, environment=given, timeout_s=_MAKING_S, heard=heard)

    def devcontainer(self, *words: str, environment: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        """The document that the CLI answers; raises IsolationMissing where it says that something went wrong."""
        done = self.run([self.cli, *words], environment=environment)
        try:
            found = json.loads(done.text.strip().splitlines()[-1])
        except (ValueError, IndexError):
            found = {}
        if done.status != 0 or found.get("outcome", "success") != "success" or not found:
            lines = [
                str(found.get(key, "")).strip() for key in ("description", "message")
            ] + done.error_text.splitlines()
            self.fail(f"devcontainer {words[0]} failed: {next(filter(None, lines), f'status {done.status}')[:300]}")
        return dict(found)

    def fail(self, why: str) -> None:
        """Raise IsolationMissing, and say where more is to be read."""
        raise IsolationMissing(_LEVEL, why, hint=f"what was said is in {self.log}")

    def write(self, name: str, content: object) -> Path:
        """A document in the folder."""
        place = self.folder / name
        files.write_atomic(place, json.dumps(content).encode() + b"\n", durable=False)
        return place


def require(app: App) -> str:
    """The CLI; raises IsolationMissing."""
    found = process.find_program("devcontainer", app.environment)
    if found is None:
        raise IsolationMissing(
            _LEVEL,
            "devcontainer is not on PATH",
            hint="npm install --global @devcontainers/cli, or unset khlone.isolation.devcontainer",
        )
    return found


def made(app: App, clone: CloneRecord, engine: str, walls: Sequence[str]) -> Made:
    """The image of a clone, which is made where there is none, or where what it is made from has changed.

    Raises IsolationMissing, or CloneBusy while another command makes it.
    """
    cli = require(app)
    found = _kept(app, clone, engine)
    if found is not None:
        return found
    with journal.held(app, clone.id, clone.name):
        found = _kept(app, clone, engine)
        if found is not None:
            return found
        place = _place(app, clone)
        with files.explained(place):
            files.make_private_dir(place)
            # What killed ones have left.
            for left in place.glob("*.making"):
                files.remove_tree(left)
            folder = files.make_private_dir(place / f"{journal.new_operation_id()}.making")
            files.write_atomic(place / "log", b"", durable=False)
            making = _Making(
                app=app,
                clone=clone,
                cli=cli,
                engine=engine,
                commit=app.repository.resolve_commit("HEAD", cwd=clone.path),
                walls=walls,
                folder=folder,
                log=place / "log",
            )
            try:
                return _make(making)
            finally:
                files.remove_tree(folder)


def forget(app: App, clone: CloneRecord, private: Path) -> None:
    """Remove the images that were made for a clone, whose private folder is at that path, as far as can be done."""
    try:
        kept = json.loads(files.read_regular(private / "devcontainer/made.json") or b"{}")
        if "engine" in kept:
            _remove_images(app, clone, str(kept["engine"]), but="", force=True)
    except (KhloneError, OSError, ValueError) as error:
        app.told(f"warning: images of {clone.name} stay: {error}")


# -- what is there -------------------------------------------------------------------------


def _place(app: App, clone: CloneRecord) -> Path:
    return app.config_dirs.clone_path(clone.id) / "devcontainer"


def _listed(app: App, clone: CloneRecord, commit: str, paths: Sequence[str]) -> str:
    """What a commit has at some paths."""
    return app.repository.git("ls-tree", "--full-tree", commit, "--", *paths, cwd=clone.path).text


def _kept(app: App, clone: CloneRecord, engine: str) -> Made | None:
    """The image that was made, while what it was made from is as it was."""
    try:
        kept = json.loads(files.read_regular(_place(app, clone) / "made.json") or b"{}")
        image, variables = str(kept["image"]), dict(kept["variables"])
        is_current = kept["engine"] == engine and kept["listed"] == _listed(app, clone, "HEAD", kept["watched"])
    except (ValueError, KeyError, TypeError):
        return None
    return Made(image=image, variables=variables) if is_current and _has(app, engine, image) else None


def _keep(app: App, clone: CloneRecord, content: Mapping[str, object]) -> None:
    files.write_atomic(_place(app, clone) / "made.json", json.dumps(content).encode() + b"\n", durable=False)


def _has(app: App, engine: str, image: str) -> bool:
    asked = [engine, "image", "inspect", "--format", "{{.Id}}", image]
    return process.run(asked, environment=isolation_left.outside(app), timeout_s=ENGINE_S).status == 0


# -- making --------------------------------------------------------------------------------


def _make(making: _Making) -> Made:
    app, clone, engine = making.app, making.clone, making.engine
    listed = _listed(app, clone, making.commit, _FILES)
    path = next((name for name in _FILES if f"\t{name}\n" in listed), None)
    if path is None:
        raise IsolationMissing(
            _LEVEL,
            f"{clone.name} has no {_FILES[0]} in its commit",
            hint="commit one, or unset khlone.isolation.devcontainer",
        )
    app.told(f"making the container of {clone.name} as {path} says")
    config = _read(making, path)
    left_out = [key for key in config if key not in _USED | _MOOT]
    build = _build_of(making, path, config, left_out)
    watched = [*_FILES] if build is None else [*_FILES, ".devcontainer", build.pop("path")]
    # Whatever comes of it, its images are known.
    _keep(app, clone, {"engine": engine})
    image = str(config.get("image", "")) if build is None else f"localhost/khlone/{clone.id}:built"
    if build is not None:
        override = making.write("build.json", {"build": build})
        words = ["--config", os.fspath(override), "--workspace-folder", os.fspath(making.folder / "tree")]
        words += ["--image-name", image, "--docker-path", engine, "--buildkit", "never"]
        making.devcontainer("build", *words)
    elif re.fullmatch(r"[A-Za-z0-9][\w.:/@-]*", image) is None:
        making.fail(f"{path} names no image and no Dockerfile; Compose is not supported")
    elif not _has(app, engine, image):
        name = Path(engine).name
        raise IsolationMissing(_LEVEL, f"{name} has no image {image}", hint=f"get it with {name} pull")
    variables = _variables(making, config, image, left_out)
    commands = {key: config[key] for key in _COMMANDS if config.get(key)}
    for key in [key for key in commands if re.search(r"\$\{(localEnv|env):", json.dumps(commands[key]))]:
        left_out.append(key)
        del commands[key]
    if left_out:
        app.told(f"left out of {path}, as khlone has its own way there or none: {', '.join(sorted(left_out))}")
    if commands:
        app.told(f"running {', '.join(commands)} in the container of {clone.name}")
        image = _run_once(making, image, variables, commands)
    listed = _listed(app, clone, making.commit, watched)
    content = {"image": image, "variables": variables, "watched": watched, "listed": listed}
    _keep(app, clone, {"engine": engine, **content})
    _remove_images(app, clone, engine, but=image)
    return Made(image=image, variables=variables)


def _read(making: _Making, path: str) -> Mapping[str, Any]:
    """The file as the CLI reads it, which finds none of the user's variables."""
    clone, folder = making.clone, making.folder
    blob = making.app.repository.git("cat-file", "blob", f"{making.commit}:{path}", cwd=clone.path).stdout
    # The CLI knows a place of its own for the worktree.
    for word, meant in (("Folder", os.fspath(clone.path)), ("FolderBasename", clone.path.name)):
        blob = blob.replace(b"${containerWorkspace%s}" % word.encode(), os.fsencode(json.dumps(meant)[1:-1]))
    files.write_new(folder / "devcontainer.json", blob, durable=False)
    bare = {"PATH": isolation_left.outside(making.app).get("PATH", os.defpath), "HOME": os.fspath(folder)}
    words = ["--workspace-folder", os.fspath(clone.path), "--override-config", os.fspath(folder / "devcontainer.json")]
    # No engine is asked: there is no container.
    words += ["--docker-path", "true"]
    found = making.devcontainer("read-configuration", *words, environment={**bare, "TMPDIR": os.fspath(folder)})
    config = found.get("configuration")
    if not isinstance(config, dict) or "dockerComposeFile" in config:
        making.fail(f"{path} wants Compose, which is not supported")
    return dict(config or {})


def _build_of(making: _Making, path: str, config: Mapping[str, Any], left_out: list[str]) -> dict[str, Any] | None:
    """What is to be built of a copy of the commit, `path` the Dockerfile's there; `None` for an image."""
    given = config.get("build")
    asked: Mapping[str, Any] = given if isinstance(given, dict) else {}
    dockerfile = asked.get("dockerfile") or asked.get("dockerFile") or config.get("dockerFile")
    if not dockerfile:
        return None
    left_out += [f"build.{key}" for key in asked if key not in _USED_TO_BUILD]
    _check_out(making)
    tree = making.folder / "tree"
    base = (tree / path).parent
    file = Path(os.path.realpath(base / str(dockerfile)))
    context = Path(os.path.realpath(base / str(asked.get("context") or config.get("context") or ".")))
    if not all(place.is_relative_to(os.path.realpath(tree)) for place in (file, context)):
        making.fail(f"{path} builds from outside of the repository")
    if not file.is_file() or not context.is_dir():
        making.fail(f"{path} builds from {dockerfile}, which is not in the commit")
    args = asked.get("args")
    resolved = {key: _resolved(value, {}) for key, value in _pairs(args)}
    left_out += [f"build.args.{key}" for key, value in resolved.items() if value is None]
    found: dict[str, Any] = {
        "path": os.path.relpath(file, os.path.realpath(tree)),
        "dockerfile": os.fspath(file),
        "context": os.fspath(context),
        "args": {key: value for key, value in resolved.items() if value is not None},
        "options": ["--label", f"khlone.clone={making.clone.id}"],
    }
    if isinstance(asked.get("target"), str) and re.fullmatch(r"\w[\w.-]*", asked["target"]):
        found["target"] = asked["target"]
    if making.app.settings.value("isolation.network") is not True:
        found["options"] += ["--network", "none"]
    return found


def _check_out(making: _Making) -> None:
    """A copy of the commit, in which no filter has run that the repository names."""
    git, where = making.app.repository.git, making.clone.path
    index = {"GIT_INDEX_FILE": os.fspath(making.folder / "index")}
    git("read-tree", making.commit, cwd=where, environment=index)
    git("checkout-index", "--all", f"--prefix={making.folder}/tree/", cwd=where, environment=index, filters=False)
    # What the CLI would ask for over the network: which features are known to be bad. None is used.
    with contextlib.suppress(KeyError):
        cache = making.folder / f"devcontainercli-{pwd.getpwuid(os.geteuid()).pw_name}"
        files.make_private_dir(cache)
        files.write_new(
            cache / "control-manifest.json", b'{"disallowedFeatures":[],"featureAdvisories":[]}', durable=False
        )


def _run_once(making: _Making, image: str, variables: Mapping[str, str], commands: Mapping[str, Any]) -> str:
    """Run the commands in a container, and keep it as an image; its name."""
    app, clone, engine = making.app, making.clone, making.engine
    name = isolation_left.name_of(journal.new_operation_id())
    isolation_left.note(app, clone, name, engine)
    argv = [engine, "run", "--detach", "--name", name, "--pull", "never", *making.walls]
    # What the image says of itself would count as the file does, and by the CLI with the user's variables in it.
    argv += ["--label", "devcontainer.metadata=[]"]
    # What is kept with it is to hold no secret: the proxy's would be one.
    argv += ["--http-proxy=false"] if Path(engine).name == "podman" else []
    for key, value in variables.items():
        argv += ["--env", f"{key}={value}"]
    kept = f"localhost/khlone/{clone.id}:{name.removeprefix('khlone-')}"
    try:
        started = making.run([*argv, "--entrypoint", "/bin/sh", image, "-c", _IDLE])
        if started.status != 0:
            making.fail(f"the container does not start: {started.error_text.strip()[-300:]}")
        settings = {"image": image, "workspaceFolder": os.fspath(clone.path), "userEnvProbe": "none"}
        settings["remoteUser"] = f"{os.geteuid()}:{os.getegid()}"
        override = making.write("run.json", {**settings, **commands})
        words = ["--container-id", started.text.split()[-1], "--workspace-folder", os.fspath(clone.path)]
        words += ["--override-config", os.fspath(override), "--docker-path", engine, "--skip-post-attach"]
        making.devcontainer("run-user-commands", *words, "--container-data-folder", _NOTES)
        # It says that all went well also where it could not begin.
        begun = making.run([engine, "exec", name, "/bin/sh", "-c", f"test -e {_NOTES}/.postCreateCommandMarker"])
        if begun.status != 0:
            making.fail("the commands did not run: the image needs /etc/os-release and a /tmp that can be written")
        making.run([engine, "kill", name])
        done = making.run([engine, "commit", "--change", f"LABEL khlone.clone={clone.id}", name, kept])
        if done.status != 0:
            making.fail(f"the container cannot be kept: {done.error_text.strip()[-300:]}")
    finally:
        isolation_left.remove(app, engine, name)
        isolation_left.drop(app, clone, name)
    return kept


def _remove_images(app: App, clone: CloneRecord, engine: str, *, but: str, force: bool = False) -> None:
    """Remove the images that were made for a clone before."""
    outside = isolation_left.outside(app)
    asked = [engine, "images", "--filter", f"label=khlone.clone={clone.id}", "--format", "{{.Repository}}:{{.Tag}}"]
    found = process.run(asked, environment=outside, timeout_s=ENGINE_S).text.split()
    gone = [name for name in found if name != but and "<none>" not in name]
    if gone:
        process.run([engine, "rmi", *(["--force"] if force else []), *gone], environment=outside, timeout_s=ENGINE_S)


# -- variables -----------------------------------------------------------------------------


def _variables(making: _Making, config: Mapping[str, Any], image: str, left_out: list[str]) -> Mapping[str, str]:
    asked = [making.engine, "image", "inspect", "--format", "{{json .Config.Env}}", image]
    try:
        listed = json.loads(making.run(asked).text or "null") or []
    except ValueError:
        listed = []
    known = {"PATH": _PATH, **dict(str(line).partition("=")[::2] for line in listed)}
    found: dict[str, str] = {}
    for section in ("containerEnv", "remoteEnv"):
        for name, value in _pairs(config.get(section)):
            resolved = _resolved(value, {**known, **found})
            if resolved is None or re.fullmatch(r"[A-Za-z_]\w*", name) is None:
                left_out.append(f"{section}.{name}")
            else:
                found[name] = resolved
    return found


def _pairs(given: object) -> Iterator[tuple[str, str]]:
    if isinstance(given, dict):
        yield from ((str(name), str(value)) for name, value in given.items() if value is not None)


def _resolved(value: str, known: Mapping[str, str]) -> str | None:
    """A value with what it takes from the container; `None` where it wants something else."""
    found = re.sub(r"\$\{containerEnv:(\w+)(?::([^}]*))?\}", lambda match: known.get(match[1], match[2] or ""), value)
    return None if "${" in found else found
