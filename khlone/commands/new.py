"""`new`: make a clone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from khlone import quick, signals
from khlone.commands import Context, verb
from khlone.errors import KhloneError, UsageError
from khlone.model import Clone, Isolation, NewRequest

if TYPE_CHECKING:
    from khlone.app import App


@verb("new")
@click.argument("name", required=False)
@click.option("--from", "start", metavar="REF", help="Start from this commit instead of HEAD.")
@click.option("--fetch", is_flag=True, help="Fetch first from the remote that --from names.")
@click.option("--pr", "pull", type=click.IntRange(1), metavar="N", help="Start from pull request N, of that name.")
@click.option("--branch", metavar="B", help="Use branch B, at its tip where it exists.")
@click.option("--into", "target", metavar="TARGET", help="The branch to merge back into.")
@click.option("--agent", metavar="A", help="The agent whose config dir is made.")
@click.option(
    "--isolate",
    type=click.Choice([level.value for level in Isolation]),
    help="How far the clone is kept apart.",
)
@click.option("-n", "count", type=click.IntRange(1, 1000), metavar="COUNT", help="Make NAME-1 to NAME-COUNT.")
@click.option("--cd", "enter", is_flag=True, help="Go there, by the shell's wrapper (see setup).")
@click.option("-d", "--detach", is_flag=True, help="With -x: as the session of the clone, which goes on; see run.")
@click.option(
    "--ask-each",
    "questions",
    metavar="FILE",
    help="Ask each clone's agent a question, detached: one a line of FILE, as JSON; - is stdin.",
)
@click.option("-x", "--exec", "unused", metavar="CMD...", help="Run CMD in it; everything after -x is CMD.")
def command(
    context: Context,
    *,
    name: str | None,
    start: str | None,
    fetch: bool,
    pull: int | None,
    branch: str | None,
    target: str | None,
    agent: str | None,
    isolate: str | None,
    count: int | None,
    enter: bool,
    detach: bool,
    questions: str | None,
    unused: str | None,
) -> int:
    """Make a clone: a worktree, a branch and a private config dir.

    The last line of the answer is the folder of the worktree.
    """
    del unused
    if name is None and pull is None:
        raise UsageError("missing argument 'NAME'", hint="see git khlone new -h")
    name = f"pr-{pull}" if name is None else name
    app = context.app()
    request = NewRequest(
        name=name,
        start=start,
        branch=branch,
        target=target,
        agent=agent,
        isolation=None if isolate is None else Isolation(isolate),
    )
    if context.command is not None and not context.command:
        raise UsageError("-x is given without a command")
    if detach and not context.command:
        raise UsageError("--detach goes with -x CMD")
    prompts = None if questions is None else _questions(context, app, request, questions, count)
    count = count if prompts is None else len(prompts)
    failed: list[tuple[str, KhloneError]] = []
    if count is None:
        made = [_create(app, request, fetch=fetch, pull=pull)]
        _tell(context, made[0])
    else:
        made, failed = _create_many(context, app, request, count, fetch=fetch, pull=pull)
    for one, error in failed:
        context.output.tell(f"{one}: {error.message}")
    code = failed[0][1].exit_code if failed else 0
    if context.command and made:
        unrun, ended = _run(context, app, made, detach=detach)
        failed += unrun
        code = ended or code
    if prompts is not None:
        unasked = _ask_each(context, app, request.name, made, prompts)
        failed += unasked
        code = code or next((error.exit_code for _, error in unasked), 0)
    if context.output.as_json:
        context.output.document(
            "new",
            {
                "clones": made,
                "failed": [{"name": one, "code": error.code, "message": error.message} for one, error in failed],
            },
        )
    for clone in made:
        context.output.answer(str(clone.path))
    if enter and made and not quick.follow(context, made[-1].path):
        context.output.tell("the shell stays where it is: see git khlone setup -h for a wrapper that follows")
    return code


def _create(app: App, request: NewRequest, *, fetch: bool, pull: int | None) -> Clone:
    if pull is not None:
        if fetch:
            raise UsageError("--pr fetches what it needs, so --fetch cannot be given too")
        from khlone.operations import from_remote

        return from_remote.create_from_pull(app, request, pull)
    if not fetch and "/" not in (request.start or ""):
        from khlone.operations import create

        return create.create(app, request)
    from khlone.operations import from_remote

    return from_remote.create_fetched(app, request, asked=fetch)


def _create_many(
    context: Context, app: App, request: NewRequest, count: int, *, fetch: bool, pull: int | None
) -> tuple[list[Clone], list[tuple[str, KhloneError]]]:
    if request.branch is not None:
        raise UsageError("-n makes a branch for each clone, so --branch cannot be given too")
    if pull is not None:
        raise UsageError("--pr makes one clone, so -n cannot be given too")
    from khlone.operations import create

    if fetch:
        from khlone.operations import from_remote

        from_remote.require_fetched(app, request.start)
    return create.create_many(app, request, count, made_one=lambda clone: _tell(context, clone))


def _questions(context: Context, app: App, request: NewRequest, source: str, count: int | None) -> list[str]:
    """What each clone is to be asked: all that can be wrong with it is known before one is made."""
    if context.command is not None:
        raise UsageError("--ask-each starts the agents, so -x cannot be given too")
    from khlone.operations import questions

    if source == "-":
        prompts = questions.parsed(sys.stdin.buffer.read(questions.MOST_BYTES + 1), "stdin")
    else:
        prompts = questions.load(context.where() / source)
    if count is not None and count != len(prompts):
        raise UsageError(f"-n {count} clones are to be asked, and {source} has {len(prompts)} prompts")
    questions.require_askable(app, request)
    return prompts


def _ask_each(
    context: Context, app: App, name: str, made: list[Clone], prompts: list[str]
) -> list[tuple[str, KhloneError]]:
    """Ask each of them; those that could not be asked."""
    from khlone.operations import questions

    unasked = []
    for clone, found in questions.ask_each(app, name, made, prompts):
        if isinstance(found, KhloneError):
            context.output.tell(f"{clone.name}: {found.message}; the clone stays")
            unasked.append((clone.name, found))
        else:
            context.output.tell(f"session {found.id} of {clone.name}: {found.state}, pid {found.pid}")
    return unasked


def _tell(context: Context, clone: Clone) -> None:
    into = f", to merge into {clone.target}" if clone.target else ""
    context.output.tell(f"{clone.name} is ready: branch {clone.branch} at {clone.base[:10]}{into}")


def _run(context: Context, app: App, made: list[Clone], *, detach: bool) -> tuple[list[tuple[str, KhloneError]], int]:
    """Run the command in each clone; those in which it could not begin, and the code of the first that has one."""
    from khlone.operations import execute, run

    code = 0
    unrun: list[tuple[str, KhloneError]] = []
    for clone in made:
        try:
            if detach:
                session = run.detach(app, run.RunRequest(clone=clone.name, command=context.command or []))
                context.output.tell(f"session {session.id} of {clone.name}: {session.state}, pid {session.pid}")
                continue
            result = execute.execute(app, clone.name, context.command or [], capture=context.output.as_json)
        except KhloneError as error:
            context.output.tell(f"{clone.name}: {error.message}; the clone stays")
            unrun.append((clone.name, error))
            code = code or error.exit_code
            continue
        ended = result.exit if result.exit is not None else 128 + (result.signal or 0)
        if context.output.as_json:
            for line in (result.stdout + result.stderr).splitlines():
                context.output.tell(f"{clone.name}: {line}")
        code = code or ended
        if result.signal == signals.SIGINT:
            break
    return unrun, code
