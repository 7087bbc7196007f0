"""The experiment log: one row per run, keyed by what the run consists of, so that reproducing a run adds none."""

import csv
import fcntl
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upkeep.core.errors import UpkeepError

Row = dict[str, str]

KEY = "run"
KEY_LENGTH = 16
PER_PLANT = ("average_precision", "failures_caught")
"""Metrics that have a column per plant as well; the others are in MLflow's child runs, to keep the log readable."""


def run_key(content: Mapping[str, Any]) -> str:
    """Return the start of the SHA-256 of the run's content as canonical JSON: 16 hexadecimal digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def describe_row(content: Mapping[str, Any], date: str, commit: str, outputs: Sequence[str]) -> Row:
    """Return a run's row.

    Parameters
    ----------
    content
        ``model``, ``parameters``, ``data`` (rows, bytes and md5 by split), ``metrics`` (by split: ``overall`` and
        ``plants``), ``description``.
    date
        When the run was made, UTC.
    commit
        The code's version.
    outputs
        Relative paths of what the run wrote.
    """
    model = content["model"]
    cells: dict[str, object] = {
        KEY: run_key(content),
        "date": date,
        "commit": commit,
        "model": model["name"],
        "kind": model["kind"],
        "description": content["description"],
        "parameters": json.dumps(content["parameters"], sort_keys=True, separators=(",", ":")),
        "outputs": " ".join(outputs),
    }
    for part, facts in {**content["data"], "model": model}.items():
        cells |= {f"{part}_{name}": facts[name] for name in ("rows", "bytes", "md5") if name in facts}
    cells |= {name: value for name, value in _figures(content["metrics"]).items() if name not in cells}
    return {name: "" if value is None else str(value) for name, value in cells.items()}


def _figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return one figure per metric and split, such as ``test_average_precision``, and some per plant."""
    figures: dict[str, Any] = {}
    for split, groups in metrics.items():
        figures |= {f"{split}_{name}": value for name, value in groups["overall"].items()}
    for split, groups in metrics.items():
        for plant, own in groups["plants"].items():
            figures |= {f"{split}_{name}_{plant}": own.get(name) for name in PER_PLANT}
    return figures


def append_row(file: Path, row: Row, lock: Path) -> Row:
    """Add a run to the log unless it is there, and return its row as logged: the first date and commit are kept.

    A new column is added at the end; older rows leave it empty. The file is replaced as a whole, under a lock.

    Raises
    ------
    UpkeepError
        If the log is not a table that this function has written.
    """
    with locked(lock):
        header, rows = read_log(file)
        known = next((logged for logged in rows if logged[KEY] == row[KEY]), None)
        if known is not None:
            return known
        _write_log(file, list(dict.fromkeys([*header, *row])), [*rows, row])
        return row


def read_log(file: Path) -> tuple[list[str], list[Row]]:
    """Return the log's columns and rows; none if there is no log yet.

    Raises
    ------
    UpkeepError
        If it is not a table with a cell per column in each row.
    """
    if not file.exists() or not file.stat().st_size:
        return [], []
    try:
        lines = list(csv.reader(io.StringIO(file.read_bytes().decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _corrupt(file, str(error)) from error
    header = lines[0]
    if KEY not in header or len(set(header)) != len(header):
        raise _corrupt(file, f"its first line is {','.join(header)[:80]!r}")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise _corrupt(file, f"record {number} starts with {','.join(line)[:40]!r} and has {len(line)} cells")
    return header, [dict(zip(header, line, strict=True)) for line in lines[1:]]


def _corrupt(file: Path, found: str) -> UpkeepError:
    return UpkeepError(
        f"the experiment log is damaged: {found}",
        expected="a CSV table with one header line, one cell per column and no merge conflict markers",
        remedy=f"keep the rows of both sides of the merge under one header, or restore it: git checkout HEAD -- {file}",
        stage="record",
        file=file,
    )


def _write_log(file: Path, header: Sequence[str], rows: Sequence[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=file.parent, prefix=f".{file.name}.", delete=False
    ) as stream:
        writer = csv.DictWriter(stream, header, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        stream.flush()
        os.fsync(stream.fileno())
    written = Path(stream.name)
    written.chmod(0o644)  # a temporary file is for its owner only
    written.replace(file)


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold a lock that other processes of this machine respect; it is let go even if this process is killed."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
