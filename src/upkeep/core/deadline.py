"""A deadline for a whole exchange with a foreign host: its lookup, the connection and the answer."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def call_within(seconds: float, work: Callable[[], T]) -> T:
    """Return the result of `work`, or raise a TimeoutError and leave it running if it takes longer.

    A socket's own limit begins anew with each byte, and looking up a host has none.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()  # what hangs must not keep the process from ending
    try:
        return result.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"not done within {seconds:.3g} s") from error
