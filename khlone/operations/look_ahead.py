"""How do gates look at several candidates at once, each on top of the one before it?

Their answers are taken in order. A failure leaves everything behind it unknown: what runs
there is ended, and nobody is blamed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from khlone import headroom
from khlone.operations.gates import Judgement
from khlone.operations.scratch import MOST_SLOTS

#: Judges the candidate of that number; asks on the way whether it is still wanted.
Judge = Callable[[int, Callable[[], bool]], Judgement]


def width(wanted: int | None, each_bytes: int) -> int:
    """How many candidates are looked at at once: as many as are wanted, or as this machine has cores and memory for."""
    if wanted is None:
        found = headroom.look()
        wanted = int(headroom.cores())
        if found.available_bytes is not None:
            wanted = min(wanted, found.available_bytes // max(1, each_bytes))
    return max(1, min(wanted, MOST_SLOTS))


def judged(count: int, judge: Judge, *, at_once: int) -> Generator[tuple[int, Judgement]]:
    """What is said of each candidate, in order, up to the first that fails; raises what `judge` raises.

    Closed early, or by an exception, it ends what still runs, and waits for that.
    """
    import threading
    from concurrent.futures import ThreadPoolExecutor

    unwanted = threading.Event()
    pool = ThreadPoolExecutor(max_workers=at_once)
    try:
        asked = [pool.submit(judge, number, unwanted.is_set) for number in range(count)]
        for number, answer in enumerate(asked):
            judgement = answer.result()
            if judgement.failed is not None:
                unwanted.set()
            yield number, judgement
            if judgement.failed is not None:
                return
    finally:
        unwanted.set()
        pool.shutdown(wait=True, cancel_futures=True)
