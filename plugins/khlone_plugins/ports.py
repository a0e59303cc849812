"""Which ports may the programs of a clone listen on? A block that no other clone on this machine has.

    khlone.ports.size    10             how many each clone gets; 0: none
    khlone.ports.range   20000-29999    where from; below what Linux gives to outgoing connections

The block is reserved while the clone is made, or when a clone without one first needs it,
and stays the clone's until that is removed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from khlone import hookimpl

if TYPE_CHECKING:
    from khlone.model import Clone, Location
    from khlone.port_leases import Lease

DEFAULT_SIZE = 10
DEFAULT_RANGE = range(20000, 30000)
_MOST = 1000


class Ports:
    """The ports of the clones of one repository."""

    def __init__(self) -> None:
        self._settings: Mapping[str, str] = {}
        self._location: Location | None = None
        self._state_dir: Path | None = None

    @hookimpl
    def khlone_opened(self, location: Location, settings: Mapping[str, str], state_dir: Path | None) -> None:
        """Note where the user's state lies."""
        self._location, self._settings, self._state_dir = location, settings, state_dir

    @hookimpl(tryfirst=True)
    def khlone_prepare(self, clone: Clone) -> None:
        """Reserve the block, before other plugins write it down somewhere; raises NoPorts."""
        # What is made durable at the end of `new` is the whole folder.
        self._lease(clone, durable=False)

    @hookimpl
    def khlone_environment(self, clone: Clone) -> Mapping[str, str] | None:
        """Tell programs of the clone which ports are theirs."""
        lease = self._lease(clone, durable=True)
        return None if lease is None else variables(lease.first, lease.count)

    def _lease(self, clone: Clone, *, durable: bool) -> Lease | None:
        count = size(self._settings)
        if self._state_dir is None or self._location is None or clone.config_dir is None or count == 0:
            return None
        from khlone import port_leases

        return port_leases.hold(
            self._state_dir,
            port_leases.private_folder(clone.config_dir),
            repository=self._location.common_dir,
            among=among(self._settings, count),
            count=count,
            durable=durable,
        )


def variables(first: int, count: int) -> dict[str, str]:
    """What programs are told: the first port, how many there are, each by its number, and all in one."""
    ports = [str(port) for port in range(first, first + count)]
    numbered = {f"KHLONE_PORT_{number}": port for number, port in enumerate(ports)}
    return {"KHLONE_PORT": ports[0], "KHLONE_PORT_COUNT": str(count), "KHLONE_PORTS": " ".join(ports), **numbered}


def size(settings: Mapping[str, str]) -> int:
    """How many ports a clone gets; raises InvalidSetting."""
    text = settings.get("ports.size", str(DEFAULT_SIZE))
    if re.fullmatch(r"\d{1,4}", text) is None or int(text) > _MOST:
        raise _invalid("khlone.ports.size", text, f"it must be a number up to {_MOST}")
    return int(text)


def among(settings: Mapping[str, str], count: int) -> range:
    """Where the blocks lie; raises InvalidSetting."""
    text = settings.get("ports.range")
    if text is None:
        return DEFAULT_RANGE
    match = re.fullmatch(r"\s*(\d{1,5})\s*-\s*(\d{1,5})\s*", text)
    found = range(int(match[1]), int(match[2]) + 1) if match else range(0)
    if found.start < 1024 or found.stop > 65536 or len(found) < count:
        raise _invalid(
            "khlone.ports.range", text, f"it must be FIRST-LAST within 1024-65535, for {count} ports or more"
        )
    return found


def _invalid(key: str, value: str, why: str) -> Exception:
    from khlone.errors import InvalidSetting

    return InvalidSetting(key, value, why)
