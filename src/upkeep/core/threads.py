"""Work in a thread of its own: beside other work, or with a deadline for all that it waits for."""

import os
from collections.abc import Callable
from concurrent.futures import Future
from signal import SIGINT
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")


def start_beside(function: Callable[..., Result], *arguments: object) -> "Future[Result]":
    """Call a function in a thread of its own, which keeps nobody from ending; its result or exception is to come."""
    future = Future[Result]()

    def work() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:  # Polars raises KeyboardInterrupt in whichever thread reads
            future.set_exception(error)
            if isinstance(error, KeyboardInterrupt):
                os.kill(os.getpid(), SIGINT)

    Thread(target=work, daemon=True).start()
    return future


def call_within(seconds: float, work: Callable[[], Result]) -> Result:
    """Return the result of `work`, or raise a TimeoutError and leave it running if it takes longer.

    A socket's own limit begins anew with each byte, and looking up a host has none.
    """
    try:
        return start_beside(work).result(seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"not done within {seconds:.3g} s") from error
