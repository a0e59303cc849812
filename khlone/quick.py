"""Which calls are answered without click, and how?

`path`, `env`, `list`, `show` and `conflicts`, which shells, prompts and scripts call all the time, in
their plain forms: click costs more than their whole answer. Any other word, and any help
or mistake, is click's: `find` gives None, and the same functions are called from there.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from khlone.context import Context
from khlone.errors import KhloneError, UsageError
from khlone.model import Clone
from khlone.output import COLOURS, size, visible
from khlone.values import field_names, plain

Call = Callable[[Context], None]

_HEADS = ("NAME", "STATE", "BRANCH", "TARGET", "AHEAD", "BEHIND", "CHANGES", "SESSION", "PATH")


def find(context: Context, words: Sequence[str]) -> Call | None:
    """What to call for these words, its options noted in `context`; `None` leaves them to click."""
    verb: str | None = None
    name: str | None = None
    as_json = quiet = False
    colour: str | None = None
    directory: Path | None = None
    status = True
    names_of = "clones"
    at = iter(words)
    for word in at:
        if word == "--json":
            as_json = True
        elif word in ("-q", "--quiet"):
            quiet = True
        elif word == "--no-plugins":
            continue
        elif word == "--color" or word.startswith("--color="):
            colour = next(at, "") if word == "--color" else word.partition("=")[2]
            if colour not in COLOURS:
                return None
        elif word == "-C":
            value = next(at, None)
            if value is None:
                return None
            directory = Path(os.path.abspath((directory or Path()) / value))
            if not directory.is_dir():
                return None
        elif word == "--no-status" and verb == "list":
            status = False
        elif word in ("--trash", "--agents") and verb == "_names":
            names_of = word[2:]
        elif (word.startswith("-") and word != "-") or (
            verb is not None and (name is not None or verb in ("list", "conflicts", "_names"))
        ):
            return None
        elif verb is None:
            verb = word
        else:
            name = word
    if verb not in ("path", "cd", "env", "list", "show", "conflicts", "_names"):
        return None
    context.directory = directory
    context.output.as_json |= as_json
    context.output.quiet |= quiet
    context.output.colour = colour or context.output.colour
    if verb == "list":
        return lambda context: show_all(context, status=status)
    if verb == "_names":
        return lambda context: show_names(context, names_of)
    if verb == "conflicts":
        return show_conflicts
    call = {"path": show_path, "cd": change_folder, "env": show_environment, "show": show_one}[verb]
    return lambda context: call(context, name)


def show_path(context: Context, name: str | None) -> None:
    """Print where a clone lies."""
    shown, path = _place(context, name)
    if context.output.as_json:
        context.output.document("path", {"name": shown, "path": path})
    context.output.answer(str(path))


def _place(context: Context, name: str | None) -> tuple[str, Path]:
    """A clone's name and folder; `^` is the main worktree. The clone counts as used."""
    app = context.app()
    if name == "^":
        main = app.location.main_worktree
        if main is None:
            raise UsageError("this repository has no main worktree that can be told from here")
        return name, main
    clone = app.require_clone(name)
    app.note_used(clone)
    return clone.name, clone.path


def change_folder(context: Context, name: str | None) -> None:
    """Print where a clone lies, and have the shell's wrapper go there."""
    shown, path = _place(context, name)
    if context.output.as_json:
        context.output.document("cd", {"name": shown, "path": path})
    context.output.answer(str(path))
    if not follow(context, path):
        context.output.tell("the shell stays where it is: see git khlone setup -h for a wrapper that follows")


def follow(context: Context, place: Path) -> bool:
    """Ask the shell's wrapper, which named a file for that, to go to a folder; False without a wrapper."""
    wanted = context.environment.get("KHLONE_CD_FILE", "")
    if not os.path.isabs(wanted) or not os.path.isfile(wanted):
        return False
    with open(wanted, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(f"{place}\n")
    return True


def show_names(context: Context, names_of: str) -> None:
    """Print the names of all `clones`, of what is in the `trash`, or of all `agents`, a line each: for completion."""
    app = context.app()
    if names_of == "agents":
        from khlone.operations import agents

        for agent in agents.profiles(app):
            context.output.answer(agent)
        return
    if not app.has_registry:
        return
    found = [record.clone for record in app.registry.trash()] if names_of == "trash" else app.registry.clones()
    for name in dict.fromkeys(clone.name for clone in found):
        context.output.answer(name)


def show_environment(context: Context, name: str | None) -> None:
    """Print the variables of a clone."""
    from khlone.operations import environment

    app = context.app()
    clone = app.require_clone(name)
    variables = environment.additions(app, clone)
    if context.output.as_json:
        context.output.document("env", {"name": clone.name, "environment": variables})
    for variable, value in sorted(variables.items()):
        context.output.answer(f"export {variable}={shlex.quote(value)}")


def show_one(context: Context, name: str | None) -> None:
    """Print everything about one clone."""
    from khlone.operations import inspect, usage

    app = context.app()
    clone = inspect.show_clone(app, name)
    used = None
    try:
        used = usage.of_clone(app, clone)
    except KhloneError as error:
        context.output.tell(f"warning: what it has used cannot be told: {visible(str(error))}")
    if context.output.as_json:
        context.output.document("show", {"clone": clone, "usage": used})
        return
    for field in field_names(clone):
        value = plain(getattr(clone, field))
        if field == "sessions":
            value = len(clone.sessions)
        shown = "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        context.output.answer(f"{field.replace('_', ' '):<11} {visible(shown)}")
    for session in clone.sessions:
        said = [session.reason, f"asks: {session.waiting_for}" if session.waiting_for else session.activity]
        why = "".join(f" ({visible(one)})" for one in said if one)
        held = "" if session.rss_bytes is None else f", {size(session.pss_bytes or session.rss_bytes)}"
        held += "" if session.cpu_percent is None else f", {session.cpu_percent:.0f} % CPU"
        context.output.answer(f"  {session.pid} {session.state}{why}{held}: {visible(' '.join(session.command))}")
    if used is not None:
        cost = "" if used.cost_usd is None else f", {used.cost_usd:.4f} USD"
        tokens = (
            f"{used.input_tokens} tokens in, {used.output_tokens} out, {used.cache_read_tokens} read from the cache"
        )
        context.output.answer(f"{'usage':<11} {used.requests} requests, {tokens}{cost}")
    _show_course(context, clone)


def _show_course(context: Context, clone: Clone) -> None:
    """The memory and CPU of the last half hour, where somebody has looked at them."""
    from khlone import samples

    found = [] if clone.config_dir is None else samples.read(clone.config_dir.parent.parent / "run")
    if len(found) > 1:
        is_plain = not context.output.can_show("".join(samples.BLOCKS))
        memory = samples.sparkline([one.pss_bytes or one.rss_bytes for one in found], plain=is_plain)
        cpu = samples.sparkline([one.cpu_percent for one in found], plain=is_plain)
        most = max(found, key=lambda one: one.pss_bytes or one.rss_bytes)
        context.output.answer(f"{'memory':<11} {memory} at most {size(most.pss_bytes or most.rss_bytes)}")
        context.output.answer(f"{'cpu':<11} {cpu} at most {max(one.cpu_percent for one in found):.0f} % of a core")


def show_all(context: Context, *, status: bool, as_tree: bool = False) -> None:
    """Print a table of all clones, `as_tree` each below its target."""
    from khlone.operations import inspect

    app = context.app()
    clones = inspect.list_clones(app, status=status)
    if context.output.as_json:
        context.output.document("list", {"repository": app.location.anchor, "clones": clones})
        return
    if not clones:
        context.output.tell("no clones yet; make one with git khlone new NAME")
        return
    added = inspect.columns(app, clones, taken=_HEADS)
    rows = [
        (*row[:-1], *(visible(cells[number]) for cells in added.values()), row[-1])
        for number, row in enumerate(map(_row, clones))
    ]
    if as_tree:
        from khlone import stacks

        rows = stacks.arranged(clones, rows, lines=context.output.can_show(stacks.LINES))
    context.output.table((*_HEADS[:-1], *map(visible, added), _HEADS[-1]), rows)
    for clone in clones:
        if clone.reason:
            context.output.tell(f"{clone.name}: {visible(clone.reason)}")


def show_conflicts(
    context: Context, names: Sequence[str] = (), *, into: str | None = None, uncommitted: bool = False
) -> None:
    """Print which clones conflict, and an order to land them in."""
    from khlone.operations import conflicts

    request = conflicts.ForecastRequest(names=names, into=into, uncommitted=uncommitted)
    found = conflicts.predict(context.app(), request)
    if context.output.as_json:
        context.output.document("conflicts", {"pairs": found.pairs, "order": found.order})
        return
    for pair in found.pairs:
        paths = ", ".join(visible(path) for path in pair.paths)
        context.output.answer(f"{pair.a} and {visible(pair.b)} conflict" + (f": {paths}" if paths else ""))
    if not found.pairs:
        context.output.answer("no conflicts")
    if found.order:
        context.output.answer(f"order: {' '.join(found.order)}")


def _row(clone: Clone) -> tuple[str, ...]:
    return (
        clone.name,
        clone.state.value,
        visible(clone.branch),
        visible(clone.target or "-"),
        _count(clone.ahead),
        _count(clone.behind),
        _changes(clone),
        _sessions(clone),
        visible(str(clone.path)),
    )


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _sessions(clone: Clone) -> str:
    """What runs in it; an agent that waits for a person is what somebody looks for."""
    if not clone.sessions:
        return "-"
    asking = next((one for one in clone.sessions if one.waiting_for), None)
    told = next((one for one in (asking, *clone.sessions) if one is not None and one.activity), clone.sessions[0])
    # In line, not for a person: `waiting` is what an agent says of itself too.
    shown = told.activity or {"waiting": "in line"}.get(told.state, told.state)
    if asking is not None:
        shown = f"asks: {asking.waiting_for}"
    return visible(shown) + (f" (of {len(clone.sessions)})" if len(clone.sessions) > 1 else "")


def _changes(clone: Clone) -> str:
    if clone.dirty is None:
        return "-"
    words = ["modified"] if clone.dirty else []
    if clone.untracked:
        words.append(f"{clone.untracked} untracked")
    return ", ".join(words) or "clean"
