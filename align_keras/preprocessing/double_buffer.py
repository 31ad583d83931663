"""Batches that threads prepare while the previous batch is in use."""

import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


def prepared_batches(
    items: Iterable[Item], prepare: Callable[[Item], Prepared], batch_size: int
) -> Iterator[list[tuple[Item, Prepared]]]:
    """Yields batches of items with the results of ``prepare``, in order.

    Threads prepare the next batch while the caller works on the current one, so two batches are in
    memory at a time.

    Args:
        items: read one by one, in the thread that iterates over the batches.
        prepare: called in threads; its exceptions are raised here, at the batch of the item.
        batch_size: items per batch; the last may have fewer.
    """
    items = iter(items)
    pool = concurrent.futures.ThreadPoolExecutor()
    try:
        waiting: list[tuple[Item, concurrent.futures.Future[Prepared]]] = []
        while batch := list(itertools.islice(items, batch_size)):
            tasks = [(item, pool.submit(prepare, item)) for item in batch]
            if waiting:
                yield [(item, task.result()) for item, task in waiting]
            waiting = tasks
        if waiting:
            yield [(item, task.result()) for item, task in waiting]
    finally:
        # Does not wait for the threads: after an error of the caller, Python may end this generator
        # in one of the pool's own threads, which cannot wait for itself.
        pool.shutdown(wait=False, cancel_futures=True)
