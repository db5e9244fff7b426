"""Work on many items at once, results in order, with a bound on what is under way; and how long each stage takes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 2


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    ahead: int = AHEAD,
    weight: Callable[[Item], float] = lambda _: 0.0,
    limit: float = 0.0,
) -> Generator[Result]:
    """Do something to each item, several at the same time on threads; what is heavy takes its turn alone.

    Stages follow each other by giving one's iterator to the next: each goes on while the others wait. Closing the
    iterator, or an error in it, lets what has begun finish and drops the rest.

    Args:
        work: From an item to its result; it releases Python's lock where it takes long.
        items: Taken one by one, at most `ahead * workers` before their results are.
        workers: Threads.
        ahead: Items under way or waiting to be taken, for each worker.
        weight: Of an item, such as its pixels.
        limit: Of the weights under way; one item may be above it, by itself.

    Yields:
        The results, in the order of the items.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="kintsugi-work")
    upcoming = iter(items)
    under_way: deque[tuple[Future[Result], float]] = deque()
    held = 0.0

    def first() -> Result:
        nonlocal held
        future, heavy = under_way.popleft()
        held -= heavy
        return future.result()

    try:
        while True:
            while under_way and (len(under_way) >= ahead * workers or held > limit):
                yield first()
            try:
                item = next(upcoming)
            except StopIteration:
                break
            heavy = weight(item)
            while under_way and held + heavy > limit:
                yield first()
            held += heavy
            under_way.append((pool.submit(work, item), heavy))
            del item  # the worker's now: do not keep it alive while waiting for the next
        while under_way:
            yield first()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if isinstance(upcoming, Generator):
            upcoming.close()


class Clock:
    """Seconds that workers of each stage are busy, added up over threads."""

    def __init__(self, *stages: str) -> None:
        """Begin at zero."""
        self.seconds = dict.fromkeys(stages, 0.0)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Clock], tuple[str, ...]]:
        """On another machine it begins at zero."""
        return Clock, tuple(self.seconds)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time that a block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Count so many seconds more."""
        with self._lock:
            self.seconds[stage] += seconds

    @property
    def slowest(self) -> str:
        """The stage that most time goes into."""
        return max(self.seconds, key=lambda stage: self.seconds[stage])
