"""Whatever is done in whatever order, the registry agrees with a dict of clones."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from khlone.errors import BranchCheckedOut, CloneExists, CloneNotReady, NameCollides
from khlone.model import GONE_STATES, CloneRecord, CloneState, Isolation
from khlone.registry import Registry, folded

NAMES = st.sampled_from(["a", "A", "b", "a/x", "a/X/y", "b-x", "b/x"])
BRANCHES = st.sampled_from(["a", "b", "main", "a/x", "b/x"])
PATHS = st.sampled_from(["/c/a", "/c/b", "/c/b-x", "/c/odd \udce9"]).map(Path)
STATES = st.sampled_from(list(CloneState))


class RegistryMachine(RuleBasedStateMachine):
    """The registry beside a dict from ids to clones."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.registry = Registry(self.folder / "registry")
        self.known: dict[str, CloneRecord] = {}

    def teardown(self) -> None:
        self.registry.close()
        shutil.rmtree(self.folder)

    def live(self) -> list[CloneRecord]:
        """What the model holds that is not gone."""
        return [one for one in self.known.values() if one.state not in GONE_STATES]

    def is_free(self, wanted: CloneRecord) -> bool:
        """Whether nothing of a clone is taken, said in another way than the registry says it."""
        parts = folded(wanted.name).split("/")
        for other in self.live():
            theirs = folded(other.name).split("/")
            shorter = min(len(parts), len(theirs))
            if parts[:shorter] == theirs[:shorter] or other.branch == wanted.branch or other.path == wanted.path:
                return False
        return True

    @rule(name=NAMES, branch=BRANCHES, path=PATHS)
    def reserve(self, name: str, branch: str, path: Path) -> None:
        """Reserve a clone; it works just when all of it is free."""
        wanted = CloneRecord(
            id=f"id{len(self.known)}",
            name=name,
            branch=branch,
            branch_owned=True,
            target=None,
            base="a" * 40,
            path=path,
            admin="x",
            state=CloneState.CREATING,
            agent=None,
            isolation=Isolation.CONFIG,
            config_dir=None,
            created_at="now",
        )
        try:
            with self.registry.transaction() as change:
                change.reserve_clone(wanted)
        except (CloneExists, NameCollides, BranchCheckedOut):
            assert not self.is_free(wanted)
        else:
            assert self.is_free(wanted)
            self.known[wanted.id] = wanted

    @rule(number=st.integers(0, 20), seen=STATES, to=STATES)
    def move(self, number: int, seen: CloneState, to: CloneState) -> None:
        """Move a clone from a state that it may or may not have; none comes back from the trash here."""
        known = self.known.get(f"id{number}")
        if known is None or (known.state in GONE_STATES and to not in GONE_STATES):
            return
        try:
            with self.registry.transaction() as change:
                change.move_clone(dataclasses.replace(known, state=seen), to, reason="moved")
        except CloneNotReady:
            assert seen is not known.state
        else:
            assert seen is known.state
            self.known[known.id] = dataclasses.replace(known, state=to, epoch=known.epoch + 1, reason="moved")

    @rule(number=st.integers(0, 20))
    def forget(self, number: int) -> None:
        """Forget a clone; its id is not used again."""
        known = self.known.get(f"id{number}")
        if known is not None and known.state in GONE_STATES:
            with self.registry.transaction() as change:
                change.delete_clone(known.id)
            self.known[known.id] = dataclasses.replace(known, state=CloneState.PURGING, admin="")

    @rule()
    def reopen(self) -> None:
        """Begin anew, as the next command does."""
        self.registry.close()
        self.registry = Registry(self.registry.path)

    @invariant()
    def agrees(self) -> None:
        """What is live is what the dict says, in the order of names."""
        found = self.registry.clones()
        assert {one.id: one for one in found} == {one.id: one for one in self.live()}
        assert [folded(one.name) for one in found] == sorted(folded(one.name) for one in found)
        for one in self.known.values():
            kept = self.registry.clone_by_id(one.id)
            assert kept == (one if one.admin else None)


TestRegistry = RegistryMachine.TestCase
TestRegistry.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
