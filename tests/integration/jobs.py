"""A model in the children that a program makes to share work, as `python jobs.py WAY METHOD`; prints the rows it made.

The functions are in a module that children import, for what stands in `__main__` some of them do not have.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

import otel_ml

ROWS, TASKS = 5, 12

otel_ml.configure("jobs")


@otel_ml.observe(model="churn", version="3", spans="sampled")
def predict(X: np.ndarray) -> np.ndarray:
    """The first column."""
    return X[:, 0]


def work(number: int) -> int:
    """One task."""
    predict(np.full((ROWS, 1), number / TASKS))
    return os.getpid()


def nothing(number: int) -> None:
    """A task without a prediction."""


def processes(context: Any) -> int:
    """A process a task."""
    return _run(context, work)


def idle(context: Any) -> int:
    """Processes that predict nothing."""
    _run(context, nothing)
    return 0


def _run(context: Any, task: Callable[[int], Any]) -> int:
    children = [context.Process(target=task, args=(number,)) for number in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return 4


def pool(context: Any) -> int:
    """A pool that ends when its work is done."""
    with context.Pool(2) as made:
        made.map(work, range(TASKS), chunksize=1)
        made.close()
        made.join()
    return TASKS


def executor(context: Any) -> int:
    """The pool of `concurrent.futures`."""
    with ProcessPoolExecutor(2, mp_context=context) as made:
        list(made.map(work, range(TASKS)))
    return TASKS


def joblib(context: None) -> int:
    """Workers of loky that are still waiting for work when the program ends."""
    import joblib as library

    library.Parallel(n_jobs=2)(library.delayed(work)(number) for number in range(TASKS))
    return TASKS


def loky(context: None) -> int:
    """Workers of loky that have ended for want of work."""
    from joblib.externals.loky import get_reusable_executor

    made = get_reusable_executor(2, timeout=0.5)
    children = set(made.map(work, range(TASKS)))
    while any(map(_lives, children)):
        time.sleep(0.05)
    return TASKS


def _lives(child: int) -> bool:
    try:
        os.kill(child, 0)
    except ProcessLookupError:
        return False
    return True


def fork(context: None) -> int:
    """Forked by hand, and ended as `sys.exit` ends."""
    return _forked(lambda: sys.exit(0))


def cut_off(context: None) -> int:
    """Forked by hand, and ended by `os._exit`: nothing can be sent."""
    return _forked(lambda: os._exit(0))


def flushed(context: None) -> int:
    """The same with a flush before the end; the parent has one before the fork, and its connections are open."""
    otel_ml.force_flush()
    return _forked(lambda: otel_ml.force_flush() and os._exit(0))


def _forked(end: Callable[[], Any]) -> int:
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            work(number)
            end()
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return len(children)


if __name__ == "__main__":
    import jobs

    jobs.work(0)
    jobs.work(1)
    way = getattr(jobs, sys.argv[1])
    made = way(multiprocessing.get_context(sys.argv[2]) if len(sys.argv) > 2 else None)
    print(2 * ROWS, made * ROWS, flush=True)
