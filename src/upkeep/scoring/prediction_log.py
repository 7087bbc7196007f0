"""The prediction log: one row per machine and answer, in Parquet by day and plant, at any address that fsspec opens.

``{root}/day=2025-03-31/plant=lyon/{part}.parquet``; the day is that of ``scored_at`` in UTC. Other append-only tables
are stored in the same way.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import lru_cache
from io import BytesIO
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import polars as pl

from upkeep.contract.casting import EARLIEST, LATEST
from upkeep.contract.dictionary import DTYPES, FINDING, FINDINGS, VISITS
from upkeep.contract.rules import is_name
from upkeep.core.addresses import open_address
from upkeep.core.errors import UpkeepError
from upkeep.core.files import MOST_BYTES, TEMPORARY, write_whole
from upkeep.core.names import shorten
from upkeep.core.plants import name_file
from upkeep.core.secrets import mask_credentials
from upkeep.features.windows import to_microseconds

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from upkeep.model.scoring import Answer, Scorer

ModelRole = Literal["champion", "challenger"]
"""A champion's predictions are shown to people; a challenger's are only logged."""

WARNINGS = pl.List(pl.Struct({"code": pl.String, "message": pl.String, "column": pl.String}))
SCHEMA = pl.Schema(
    {
        "id": pl.String(),
        "source": pl.String(),
        "role": pl.String(),
        "scored_at": DTYPES["time"],
        "plant": pl.String(),
        "machine": pl.String(),
        "time": DTYPES["time"],
        "probability": pl.Float64(),
        "threshold": pl.Float64(),
        "alarm": pl.Boolean(),
        "model_version": pl.String(),
        "warnings": WARNINGS,
        **dict.fromkeys(("serviced_at", "maintained_at"), DTYPES["time"]),
        "maintenance_code": pl.String(),
        "features": pl.List(pl.Float32),
        "readings": pl.List(pl.Float32),
        "inputs": pl.String(),
    }
)
"""`source` is ``api``, ``batch`` or ``smoke`` (golden requests); `role` a :data:`ModelRole`, null (champion) in old
files; `time` that of the newest telemetry row; `serviced_at`, null in old files, and the
last maintenance those of :class:`LastService`; `inputs` the received rows as JSON."""

Prediction = dict[str, Any]
"""A row of `SCHEMA` in Python: times are microseconds since 1970, lists are float32 arrays."""

Happening = tuple[str, int, str, str | None]  # machine, time in microseconds, kind and code of an event

DAY = re.compile(r"day=\d{4}-\d\d-\d\d")
NOT_PLAIN = re.compile(r"[^a-z0-9._~-]")
LONGEST_FOLDER = 200
ROW_GROUP = 200  # rows compressed together, which takes several times their memory

SLICE_ROWS = 2_000
"""Read at once, since a file of kilobytes may unpack to gigabytes."""

IS_PREDICTION = {
    **{name: pl.col(name).is_not_null() for name in ("source", "threshold", "alarm", "model_version")},
    "warnings": pl.col("warnings").list.eval(pl.element().is_not_null()).list.all(),
    **{name: pl.col(name).is_not_null() & is_name(pl.col(name)) for name in ("plant", "machine")},
    **{name: pl.col(name).is_between(EARLIEST, LATEST) for name in ("time", "scored_at")},
    "role": pl.col("role").is_null() | pl.col("role").is_in(get_args(ModelRole)),
    **{
        name: pl.col(name).is_null() | pl.col(name).is_between(EARLIEST, LATEST)
        for name in ("serviced_at", "maintained_at")
    },
    "probability": pl.col("probability").is_between(0, 1),
}
"""What holds for every row that upkeep writes; others may write to the folder, too."""

WAS_SERVICED = (pl.col("serviced_at") > pl.col("time")).fill_null(value=False)
"""Which rows say nothing of their machine any more, as its last service ended after them."""

STANDS = pl.col("alarm") & ~WAS_SERVICED
"""Which alarms still tell something of their machine."""


class Log(NamedTuple):
    """An append-only table: its name, its columns, what `holds` for each row, and the columns of its folders."""

    what: str
    schema: pl.Schema
    holds: Mapping[str, pl.Expr]
    filed_by: str
    folders: tuple[str, ...]


class LastService(NamedTuple):
    """When a machine's last service ended, a maintenance or the repair of a failure; and its last maintenance, if any.

    An alarm of an earlier row, one under repair included, says nothing of the machine since.
    """

    serviced_at: int | None = None
    maintained_at: int | None = None
    maintenance_code: str | None = None


PREDICTION_LOG = Log("predictions", SCHEMA, IS_PREDICTION, "scored_at", ("plant",))
VISIT_LOG = Log("findings", VISITS, {FINDING: pl.col(FINDING).is_in(FINDINGS)}, "said_at", ())

logger = logging.getLogger(__name__)

# The client's defaults would block for minutes when S3 is down.
S3_WAITS = {"connect_timeout": 3, "read_timeout": 10, "retries": {"max_attempts": 1}}


def find_services(happened: Iterable[Happening], max_repair_hours: float) -> dict[str, LastService]:
    """Return each machine's last service; a repair without a recorded end is over when labels say so."""
    found: dict[str, LastService] = {}
    for machine, time, kind, code in sorted(happened, key=itemgetter(1, 2)):  # a maintenance may end a failure at once
        if kind == "maintenance":
            found[machine] = LastService(time, time, code)
        elif kind == "failure":
            repaired = time + to_microseconds(max_repair_hours)
            found[machine] = found.get(machine, LastService())._replace(serviced_at=repaired)
    return found


def as_prediction(
    answer: "Answer",
    scorer: "Scorer",
    inputs: str,
    *,
    identity: str,
    source: str,
    scored_at: int,
    role: ModelRole,
    service: LastService | None,
) -> Prediction:
    """Return an answer as a row of the log; `inputs` are the rows that it was made from, as JSON.

    `service` is the machine's last one, None if none is known.
    """
    return {
        "id": identity,
        "source": source,
        "role": role,
        "scored_at": scored_at,
        "plant": scorer.model.metadata.plant,
        "threshold": scorer.model.metadata.threshold,
        "model_version": scorer.version,
        "inputs": inputs,
        **answer._asdict(),
        **(service or LastService())._asdict(),
    }


def as_log_rows(predictions: Sequence[Prediction]) -> pl.DataFrame:
    """Return predictions as rows of `SCHEMA`, in their order; a number that is NaN becomes null.

    Raises KeyError if a column is missing, and TypeError, ValueError or PolarsError for a value of another type.
    """
    columns: dict[str, Any] = {name: [prediction[name] for prediction in predictions] for name in SCHEMA}
    for name, kind in SCHEMA.items():
        if kind == DTYPES["time"]:
            columns[name] = pl.Series(columns[name], dtype=pl.Int64).cast(kind)
    # Polars reads structs from JSON twenty times as fast as from dictionaries.
    warnings = pl.Series([json.dumps(each) for each in columns["warnings"]], dtype=pl.String)
    columns["warnings"] = warnings.str.json_decode(WARNINGS)
    for name in ("features", "readings"):
        lists = [pl.Series(values, nan_to_null=True) for values in columns[name]]
        columns[name] = pl.Series(lists, dtype=SCHEMA[name])
    return pl.DataFrame(columns, schema=SCHEMA)


def write_part(root_url: str, part_name: str, frame: pl.DataFrame, log: Log = PREDICTION_LOG) -> list[str]:
    """Write rows to a file for each day and folder of the log; return the files' names, relative to `root_url`.

    `part_name` is unique for these rows. Files are written at once or not at all, and one of the same name is
    replaced, so a part can be written again after a crash. An UpkeepError is raised at the first file that cannot be
    written.
    """
    days, folders = frame.with_columns(day=pl.col(log.filed_by).dt.date()), ("day", *log.folders)
    names = []
    with _opened(root_url, f"{log.what} cannot be written") as (store, root):
        for values, rows in days.partition_by(folders, as_dict=True, maintain_order=True).items():
            path = [f"{name}={_name_folder(str(value))}" for name, value in zip(folders, values, strict=True)]
            names.append("/".join([*path, f"{part_name}.parquet"]))
            rows.drop("day").write_parquet(content := BytesIO(), compression="zstd", row_group_size=ROW_GROUP)
            _put(store, f"{root}/{names[-1]}", content.getvalue())
    return names


def name_rows(rows: pl.DataFrame) -> str:
    """Return a short name of what rows hold, the same for the same rows."""
    return hashlib.sha256(rows.write_csv().encode()).hexdigest()[:16]


def _name_folder(value: str) -> str:
    """Return a value as a folder's name has it: percent-encoded, capitals too, since some disks ignore case.

    Names are limited to 255 bytes, so a very long one is replaced; the rows have it in full.
    """
    escaped = NOT_PLAIN.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), value)
    return escaped if len(escaped) <= LONGEST_FOLDER else name_file(value)


def read_parts(
    root_url: str, since_day: date, known: set[str], columns: list[str] | None = None, log: Log = PREDICTION_LOG
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the names and rows of the log's files from this day on, newest day first, without those in `known`.

    Files are read one by one: a damaged file has no rows, rows that upkeep cannot have written are left out, and an
    unreadable file is skipped, each with a warning. An UpkeepError is raised if the log cannot be listed; a log that
    does not exist has no files.
    """
    with _opened(root_url, f"{log.what} cannot be read") as (store, root):
        names = _list_parts(store, root, since_day, date.max)
    wanted = log._replace(schema=pl.Schema({name: log.schema[name] for name in columns or log.schema}))
    for name in names:
        if name not in known and (rows := _read_part(store, f"{root}/{name}", wanted)) is not None:
            yield name, rows


def _read_part(store: "AbstractFileSystem", path: str, log: Log) -> pl.DataFrame | None:
    """Return a file's valid rows, none if it is damaged; None if it cannot be read."""
    file = shorten(mask_credentials(path))
    try:
        found = store.info(path)
        if found["type"] != "file":
            raise OSError("it is not a regular file")
        if (found["size"] or 0) > MOST_BYTES:
            raise OSError(f"it has {found['size']:,} bytes, at most {MOST_BYTES:,} are read")
        content = store.cat_file(path)
    except Exception as error:  # each store raises its own
        _warn_once(f"{log.what}: {file} cannot be read: {mask_credentials(str(error))}")
        return None
    try:
        rows = _collect_bounded(pl.scan_parquet(BytesIO(content)).pipe(complete, log.schema))
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        _warn_once(f"{log.what}: {file} is damaged: {shorten(error)}")
        return log.schema.to_frame()
    good = rows.filter(*(log.holds[column] for column in rows.columns if column in log.holds))
    if good.height < rows.height:
        _warn_once(f"{log.what}: {rows.height - good.height} row(s) of {file} are none")
    return good


def _collect_bounded(table: pl.LazyFrame) -> pl.DataFrame:
    """Return a file's rows; raises OSError if they take more than MOST_BYTES of memory."""
    slices: list[pl.DataFrame] = []
    while not slices or slices[-1].height == SLICE_ROWS:
        slices.append(table.slice(SLICE_ROWS * len(slices), SLICE_ROWS).collect())
        if sum(rows.estimated_size() for rows in slices) > MOST_BYTES:
            raise OSError(f"it takes more than {MOST_BYTES:,} bytes once it is unpacked")
    return pl.concat(slices)


@lru_cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def complete(rows: pl.LazyFrame, schema: pl.Schema) -> pl.LazyFrame:
    """Return rows with these columns; those that files of older versions lack are null."""
    known = rows.collect_schema()
    return rows.select(
        pl.col(name).cast(kind) if name in known else pl.lit(None, kind).alias(name) for name, kind in schema.items()
    )


def list_before(root_url: str, day: date) -> dict[str, int]:
    """Return the log's files of earlier days with their sizes, links out of it excluded."""
    with _opened(root_url, "predictions cannot be read") as (store, root):
        return {
            name: store.size(f"{root}/{name}")
            for name in _list_parts(store, root, date.min, day)
            if "file" not in store.protocol or Path(root, name).resolve() == Path(root).resolve() / name
        }


def remove_parts(root_url: str, names: Sequence[str]) -> None:
    """Remove files of the log, named as by :func:`list_before`, and folders that are empty then."""
    with _opened(root_url, "predictions cannot be removed") as (store, root):
        store.rm([f"{root}/{name}" for name in names])
        if "file" in store.protocol:
            folders = {folder for name in names for folder in Path(root, name).parents[:2]}
            for folder in sorted(folders, reverse=True):
                if not any(folder.iterdir()):
                    folder.rmdir()


def _list_parts(store: "AbstractFileSystem", root: str, since_day: date, end: date) -> list[str]:
    store.invalidate_cache()
    try:
        folders = [str(folder).rstrip("/").rpartition("/")[2] for folder in store.ls(root, detail=False)]
    except FileNotFoundError:
        return []
    days = [folder for folder in folders if DAY.fullmatch(folder) and f"day={since_day}" <= folder < f"day={end}"]
    files = [str(file) for day in days for file in store.find(f"{root}/{day}")]
    names = sorted(file.removeprefix(f"{root}/") for file in files if file.endswith(".parquet"))
    return sorted(names, key=lambda name: name.partition("/")[0], reverse=True)


def _put(store: "AbstractFileSystem", path: str, content: bytes) -> None:
    from fsspec.asyn import AsyncFileSystem
    from fsspec.implementations.local import LocalFileSystem

    if isinstance(store, LocalFileSystem):
        write_whole(Path(path), content)
    elif isinstance(store, AsyncFileSystem):  # object stores write whole files and need no folders
        store.pipe_file(path, content)
    else:
        folder, _, name = path.rpartition("/")
        store.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{name}{TEMPORARY}"
        store.pipe_file(temporary, content)
        store.mv(temporary, path)


@contextmanager
def _opened(url: str, failure: str) -> "Iterator[tuple[AbstractFileSystem, str]]":
    """Open a log's store, and turn whatever it raises meanwhile into an UpkeepError."""
    try:
        yield open_address(url, **({"config_kwargs": S3_WAITS} if url.startswith("s3://") else {}))
    except UpkeepError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise UpkeepError(
            f"{failure}: {type(error).__name__}: {reason}",
            expected="a folder, or an address that fsspec opens, such as s3://bucket/log",
            remedy="check the address, the network, the rights and, for S3, AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL",
            file=url,
        ) from error
