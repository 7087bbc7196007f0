"""Sources polled by GET, and the history of earlier runs: their polls, and when each batch was first seen."""

import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from operator import attrgetter
from urllib.parse import unquote

import urllib3

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.names import shorten
from upkeep.core.objects import read_object
from upkeep.core.secrets import hide_variables
from upkeep.core.threads import call_within
from upkeep.judging.reports import Report
from upkeep.production.health import Arrival, Poll
from upkeep.scoring.alerts import read_url

HISTORY = paths.LOCAL / "monitor" / "history.json"
SECONDS = 10.0  # for an answer, from looking up the host to its last byte that is read
MOST_BYTES = 1_000_000  # of an answer; what comes after is not waited for
MOST_POLLS, MOST_DAYS = 500, 400  # of a source, and since a batch was seen: what is older is forgotten


class History(Report):
    """Polls, and first sightings of batches, of earlier runs."""

    polls: tuple[Poll, ...] = ()
    seen: tuple[Arrival, ...] = ()

    def add(self, polls: Iterable[Poll], found: Iterable[Arrival], at: datetime) -> "History":
        """Return the history with these polls, and with the batches `found` that were not seen before."""
        asked = sorted((*self.polls, *polls), key=attrgetter("name", "at"))
        kept = [each for _, own in groupby(asked, attrgetter("name")) for each in list(own)[-MOST_POLLS:]]
        first = {(each.plant, each.batch): each for each in reversed((*self.seen, *found))}
        dated = sorted(first.values(), key=attrgetter("at", "plant", "batch"))
        recent = [each for each in dated if each.at > at - timedelta(days=MOST_DAYS)]
        return History(polls=tuple(kept), seen=tuple(recent))


def read_history() -> History:
    """Return the history, empty on the first run; an UpkeepError is raised if the file is damaged."""
    if not HISTORY.exists():
        return History()
    remedy = "delete the file; what is usual is then learnt anew"
    return read_object(History, HISTORY, what="what earlier runs of `upkeep monitor` saw", remedy=remedy)


def poll(name: str, url: str, at: datetime) -> Poll:
    """Ask a source by GET once; any status but 2xx is a fault, redirects included, which are not followed."""
    started = time.perf_counter()
    try:
        fault = call_within(SECONDS, partial(_request_status, url))
    except UpkeepError as error:
        fault = f"not asked: {error.what}"
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        fault = f"no answer: {shorten(hide_variables(str(error), url))}"
    return Poll(name=name, at=at, seconds=round(time.perf_counter() - started, 3), fault=fault)


def _request_status(template: str) -> str:
    url = read_url(template)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("its url in monitor.watch is not a web address")
    login = unquote(url.auth or "")
    headers = urllib3.make_headers(basic_auth=login, basic_auth_encoding="utf-8", user_agent="upkeep")
    with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=SECONDS)) as pool:
        address = url._replace(auth=None, fragment=None).url
        answer = pool.request("GET", address, headers=headers, preload_content=False, redirect=False)
        answer.read(MOST_BYTES, decode_content=False)
        answer.close()
    return "" if 200 <= answer.status < 300 else f"HTTP status {answer.status}"
