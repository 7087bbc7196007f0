"""Addresses of files that fsspec can open."""

from typing import TYPE_CHECKING, Any

from upkeep.core.errors import UpkeepError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def findings_beside(log: str) -> str:
    """Return where the service keeps the findings of visits: beside the prediction log at this address."""
    return f"{log.rstrip('/')}/findings"


def open_address(url: str, **options: Any) -> "tuple[AbstractFileSystem, str]":
    """Return an address's file system and the path in it; raises UpkeepError if the package for it is not installed."""
    from fsspec.core import url_to_fs

    try:
        file_system, path = url_to_fs(url, **options)
    except ImportError as error:
        scheme = url.partition("://")[0].rpartition("::")[2]
        remedy = "pip install 'upkeep[s3]'" if scheme in ("s3", "s3a") else "install it in upkeep's environment"
        raise UpkeepError(f"{scheme}:// needs a package that is not installed: {error}", remedy=remedy) from error
    return file_system, str(path).rstrip("/")
