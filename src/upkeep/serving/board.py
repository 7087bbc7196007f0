"""The fleet in memory, as the page shows it: each machine's newest prediction and the history of its risk."""

import logging
import threading
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate, groupby
from typing import NamedTuple

import numpy as np
import polars as pl
import polars.selectors as cs

from upkeep.core.types import Floats
from upkeep.scoring.prediction_log import SCHEMA, Prediction, read_parts

HISTORY_POINTS = 60
HISTORY_DAYS = 30
# Parts are stored soon after their predictions were made; after a store's outage they may come a day late.
LATE_DAYS = 1
REFRESH_SECONDS = 60.0

MOST_BYTES = 200_000_000
MACHINE_BYTES = 3_000  # that a machine takes beside its arrays and texts
MOST_TEXT = 10_000  # characters of names and warnings; upkeep itself logs none with more
DAY_MS = 86_400_000
DAY_US = 1000 * DAY_MS
KEPT = [name for name in SCHEMA if name not in ("id", "inputs")]

logger = logging.getLogger(__name__)


class BoardMachine(NamedTuple):
    """One machine on the board; replaced as a whole, so that no reader sees half an update.

    `newest` is the logged prediction of the newest telemetry, without its inputs. `history` has a point per telemetry
    time, oldest first, shape (n_points, 2): time in milliseconds and probability. `maintenance` is the last known
    one: its time in microseconds and its code.
    """

    newest: Prediction
    history: Floats
    maintenance: tuple[int, str | None] | None

    @property
    def maintained_since(self) -> bool:
        """Whether the last known maintenance is after the newest reading, which tells nothing of later times."""
        return self.maintenance is not None and self.maintenance[0] > self.newest["time"]

    @property
    def stands(self) -> bool:
        """Whether there is an alarm, and no service that ends after its reading."""
        serviced_since = (self.newest["serviced_at"] or 0) > self.newest["time"]
        return self.newest["alarm"] and not (serviced_since or self.maintained_since)


class Board:
    """The fleet's newest predictions; several threads add and read them.

    Predictions of other processes are read from the prediction log, if there is one. Beyond `most_machines` or
    :data:`MOST_BYTES`, the machines not scored for longest are dropped.
    """

    def __init__(self, log_url: str, most_machines: int) -> None:
        self._log_url = log_url
        self._most_machines, self._bytes = most_machines, 0
        self._machines: dict[tuple[str, str], BoardMachine] = {}
        self._lock = threading.Lock()
        self._known_parts: set[str] = set()
        self._log_read_at: datetime | None = None
        self._stopping = threading.Event()
        self._refresher = threading.Thread(target=self._keep_fresh, name="board", daemon=True)

    def start(self) -> None:
        """Refresh every minute, in the background, until `close`."""
        self._refresher.start()

    def close(self) -> None:
        """Stop refreshing, without waiting for a store that does not answer."""
        self._stopping.set()

    @property
    def as_of(self) -> datetime | None:
        """When the prediction log was last read in full; None if not yet. Without a log, now."""
        return self._log_read_at if self._log_url else datetime.now(UTC)

    def add(self, prediction: Prediction) -> bool:
        """Add a prediction and return whether it changed anything; an older one never replaces a newer one."""
        # Golden requests hold old data, and a challenger's predictions are not for people.
        if prediction["source"] == "smoke" or prediction["role"] == "challenger" or _count_text(prediction) > MOST_TEXT:
            return False
        key = prediction["plant"], prediction["machine"]
        with self._lock:
            known = self._machines.get(key)
            self._machines[key] = machine = _update_machine(known, prediction)
            self._bytes += _count_bytes(machine) - (_count_bytes(known) if known else 0)
            # Dropping machines sorts the fleet, so it is not done for each one.
            if len(self._machines) > 1.1 * self._most_machines or self._bytes > 1.1 * MOST_BYTES:
                self._forget()
        return machine is not known

    def get(self, plant: str, machine: str) -> BoardMachine | None:
        """Return one machine, or None if it was never scored."""
        return self._machines.get((plant, machine))

    def rank(self) -> list[BoardMachine]:
        """Return all machines, the most urgent first: alarms that stand, then by risk."""
        return sorted(self._machines.values(), key=_urgency)

    def refresh(self) -> None:
        """Read new parts of the log; on failure the board stays as it is, and `as_of` shows its age."""
        if not self._log_url:
            return
        now = datetime.now(UTC)
        try:
            self._read_log(now.date())
        except Exception as error:  # no store and no file may end the refreshing
            logger.warning("the page cannot show what other processes predicted: %s", error)
            return
        with self._lock:
            self._forget()
        self._log_read_at = now

    def _read_log(self, today: date) -> None:
        is_first = self._log_read_at is None
        since = today - timedelta(days=HISTORY_DAYS if is_first else LATE_DAYS)
        parts = read_parts(self._log_url, since, self._known_parts, KEPT)
        for _, of_day in groupby(parts, key=lambda part: part[0].partition("/")[0]):
            news = 0
            for name, rows in of_day:
                self._known_parts.add(name)
                shown = rows.filter(pl.col("role").ne_missing("challenger")).sort("scored_at")
                newest = shown.unique(["plant", "machine", "time"], keep="last", maintain_order=True)
                try:
                    news += sum(map(self.add, newest.with_columns(cs.datetime().to_physical()).iter_rows(named=True)))
                except Exception as error:  # no file may hide the others
                    logger.warning("the page does not show all of %s: %s", name, error)
            # The first search ends at a day without news once each history is full; golden requests and repeated rows
            # add nothing either.
            full = [len(machine.history) == HISTORY_POINTS for machine in self.rank()]
            if is_first and not news and full and all(full):
                break
        self._known_parts = {part for part in self._known_parts if part >= f"day={today - timedelta(days=LATE_DAYS)}"}

    def _forget(self) -> None:
        oldest = datetime.now(UTC).timestamp() * 1e6 - HISTORY_DAYS * DAY_US
        latest = sorted(self._machines.items(), key=lambda item: item[1].newest["scored_at"], reverse=True)
        bytes_so_far = accumulate(_count_bytes(machine) for _, machine in latest)
        self._machines = {
            key: machine
            for (key, machine), size in zip(latest[: self._most_machines], bytes_so_far, strict=False)
            if size <= MOST_BYTES and machine.newest["scored_at"] >= oldest
        }
        self._bytes = sum(map(_count_bytes, self._machines.values()))

    def _keep_fresh(self) -> None:
        self.refresh()
        while not self._stopping.wait(REFRESH_SECONDS):
            self.refresh()


def _update_machine(known: BoardMachine | None, prediction: Prediction) -> BoardMachine:
    """Return a machine with one more prediction; `known` itself if that changes nothing."""
    history, maintenance = (known.history, known.maintenance) if known else (np.empty((0, 2)), None)
    is_newer = known is None or _recency(prediction) > _recency(known.newest)
    point = np.array([[prediction["time"] // 1000, prediction["probability"]]])
    joined = np.concatenate((point, history) if is_newer else (history, point))
    _, first = np.unique(joined[:, 0], return_index=True)  # at the same time, the newer prediction's
    recent = joined[first][joined[first, 0] >= joined[:, 0].max() - HISTORY_DAYS * DAY_MS][-HISTORY_POINTS:]
    maintained_at = prediction["maintained_at"]
    if maintained_at is not None and (maintenance is None or maintained_at > maintenance[0]):
        maintenance = maintained_at, prediction["maintenance_code"]
    if known and not is_newer and np.array_equal(recent, history) and maintenance is known.maintenance:
        return known
    return BoardMachine(_keep(prediction) if known is None or is_newer else known.newest, recent, maintenance)


def _keep(prediction: Prediction) -> Prediction:
    # Copies, since a view of one row would keep its whole batch in memory.
    arrays = {name: prediction[name] for name in ("features", "readings")}
    copies = {name: np.array([] if of is None else of, dtype=np.float32) for name, of in arrays.items()}
    return {key: prediction[key] for key in KEPT} | copies


def _count_text(prediction: Prediction) -> int:
    texts = [prediction["plant"], prediction["machine"], prediction["model_version"], prediction["maintenance_code"]]
    warned = [text for warning in prediction["warnings"] for text in warning.values()]
    return sum(len(text) for text in (*texts, *warned) if text)


def _count_bytes(machine: BoardMachine) -> int:
    arrays = machine.history, machine.newest["features"], machine.newest["readings"]
    return MACHINE_BYTES + 4 * _count_text(machine.newest) + sum(array.nbytes for array in arrays)


def _recency(prediction: Prediction) -> tuple[int, int]:
    return prediction["time"], prediction["scored_at"]


def _urgency(machine: BoardMachine) -> tuple[bool, float, str, str]:
    newest = machine.newest
    return not machine.stands, -newest["probability"], newest["plant"], newest["machine"]
