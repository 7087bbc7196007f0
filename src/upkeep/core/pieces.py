"""A cache of results, each named by a hash of all that it was made from: deleting them costs time only.

A piece is a few tables in one file. It is part of no output and never leaves this machine: whoever may write to the
folder decides what the stages read, so pieces made in one trust zone must not reach another.
"""

import hashlib
import logging
import os
import platform
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import polars as pl
from pydantic_core import to_json

from upkeep.core.files import read_regular, write_whole
from upkeep.core.params import Pieces
from upkeep.core.plants import ROW_GROUP_ROWS

LIBRARIES = ("lightgbm", "numpy", "polars", "scikit-learn", "scipy")  # whose versions may change a result's bytes

ENDING = ".piece"  # of file names: nothing else in the folder is ever deleted

logger = logging.getLogger(__name__)

Frames = dict[str, pl.DataFrame]
Recall = Callable[[Iterable[object], Callable[[], Frames]], Frames]  # `recall` of one code


def recall(how: Pieces, code: Sequence[str], made_from: Iterable[object], make: Callable[[], Frames]) -> Frames:
    """Return the tables that this code made from these inputs before; make them if they are not kept, or are damaged.

    `code` are the folders and files of the package that take part, as the stage's dependencies in ``dvc.yaml`` list
    them. Everything else that the tables depend on must be in `made_from`, always in the same order.
    """
    if how.folder is None:
        return make()
    file = how.folder / f"{name_piece(code, made_from)}{ENDING}"
    if (kept := _read_frames(file, int(how.max_gb * 1e9))) is not None:
        return kept
    made = make()
    content = _write_frames(made)
    try:
        write_whole(file, hashlib.sha256(content).digest() + content)
    except OSError as error:  # the run does not need it
        logger.warning("%s cannot be kept: %s", file, error.strerror)
    return made


make_anew: Recall = partial(recall, Pieces(folder=None, max_gb=0), ())  # keep nothing


def name_piece(code: Sequence[str], made_from: Iterable[object]) -> str:
    """Return the name of the piece that this code makes from these tables, bytes and settings."""
    own = {file: checksum for file, checksum in LOADED.items() if file in code or file.partition("/")[0] in code}
    digest = hashlib.sha256(to_json([name_versions(), own]))
    for part in made_from:
        digest.update(hashlib.sha256(_to_bytes(part)).digest())
    return digest.hexdigest()


def drop_oldest(how: Pieces) -> None:
    """Delete the least recently used pieces until the others fit into ``pieces.max_gb``."""
    if how.folder is None:
        return
    found = []
    for file in how.folder.glob(f"*{ENDING}*"):
        with suppress(FileNotFoundError):  # another run may delete pieces as well
            found.append((file.stat(), file))
    excess = sum(status.st_size for status, _ in found) - how.max_gb * 1e9
    for status, file in sorted(found, key=lambda piece: piece[0].st_mtime_ns):
        if excess <= 0:
            break
        try:
            file.unlink(missing_ok=True)
            excess -= status.st_size
        except OSError as error:  # the run does not need it
            logger.warning("%s cannot be deleted: %s", file, error.strerror)


@cache
def name_versions() -> dict[str, str]:
    """Return the versions that may change the bytes of a result."""
    return {"python": platform.python_version(), **{library: version(library) for library in LIBRARIES}}


def _read_code(package: Path) -> dict[str, str]:
    files = sorted(package.rglob("*.py"))
    return {file.relative_to(package).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


LOADED = _read_code(Path(__file__).parents[1])
"""The code that this process loaded: editing a file meanwhile does not change what is made here."""


def _to_bytes(part: object) -> bytes:
    if not isinstance(part, pl.DataFrame):
        return part if isinstance(part, bytes) else to_json(part)
    # Parquet holds nothing but the values, whereas memory keeps remains of former rows and nulls.
    part.write_parquet(buffer := BytesIO(), compression="uncompressed", statistics=False, row_group_size=ROW_GROUP_ROWS)
    return buffer.getvalue()


def _write_frames(frames: Frames) -> bytes:
    with zipfile.ZipFile(packed := BytesIO(), "w") as archive:
        for name, frame in frames.items():
            frame.write_parquet(content := BytesIO(), compression="lz4")
            archive.writestr(zipfile.ZipInfo(name), content.getvalue())
    return packed.getvalue()


def _read_frames(file: Path, most_bytes: int) -> Frames | None:
    """Return the tables kept in a file; None if it is missing, damaged or unreadable."""
    try:
        kept = read_regular(file, most_bytes)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            logger.warning("%s cannot be read, and is made again: %s", file, error.strerror)
        return None
    if hashlib.sha256(kept[32:]).digest() != kept[:32]:
        logger.warning("%s is damaged, and is made again", file)
        return None
    with suppress(OSError):  # the file may be a colleague's
        os.utime(file)  # the least recently used ones are deleted first
    with zipfile.ZipFile(BytesIO(kept[32:])) as archive:
        return {name: pl.read_parquet(archive.read(name)) for name in archive.namelist()}
