"""Many shards at once, in processes of their own.

Workers are started afresh (spawn), as the process that calls may have threads, JAX's among them. A worker leaves when
the process that started it is gone, however it went: nothing may write into a folder that another run now owns.
"""

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized

from asyncpatch.data.prepare.shards import ShardPlan, ShardReport, make_shard

REPORT_SECONDS = 0.25
"""How often progress is reported."""


def make_shards(plans: Sequence[ShardPlan], workers: int, progress: Callable[[int, int], None]) -> list[ShardReport]:
    """Make all shards in `workers` processes, or in this one if 0. `progress` is told images done and their total."""
    total = sum(len(plan.originals) for plan in plans)
    if workers:
        return _make_beside(plans, workers, lambda done: progress(done, total))
    done = 0

    def advance(images: int) -> None:
        nonlocal done
        done += images
        progress(done, total)

    return [make_shard(plan, advance) for plan in plans]


def _make_beside(plans: Sequence[ShardPlan], workers: int, progress: Callable[[int], None]) -> list[ShardReport]:
    context = multiprocessing.get_context("spawn")
    done = context.Value("q", 0)
    with concurrent.futures.ProcessPoolExecutor(workers, context, _begin, (done,)) as pool:
        futures = [pool.submit(_work, plan) for plan in plans]
        waiting = set(futures)
        try:
            while waiting:
                finished, waiting = concurrent.futures.wait(waiting, REPORT_SECONDS, concurrent.futures.FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                progress(done.get_obj().value)  # without the lock, which a worker that was killed may have held
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process died, perhaps for want of memory; start again with fewer: whole shards are kept"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return [future.result() for future in futures]


class _Worker:
    """What a worker process holds: the count of images that all workers share."""

    done: "Synchronized[int]"


def _begin(done: "Synchronized[int]") -> None:
    _Worker.done = done
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(plan: ShardPlan) -> ShardReport:
    return make_shard(plan, _advance)


def _advance(images: int) -> None:
    with _Worker.done.get_lock():
        _Worker.done.value += images
