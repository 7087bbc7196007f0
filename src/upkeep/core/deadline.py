"""A deadline for the whole of what a foreign host may draw out: looking it up, connecting, each byte of an answer."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def call_within(seconds: float, work: Callable[[], T]) -> T:
    """Return what is done in time, else raise a TimeoutError and leave the work to itself.

    A socket's own limit begins anew with each byte, and there is none for looking up a host.
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
