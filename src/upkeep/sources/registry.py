"""The sources that params.yaml can name, and the one it names."""

import importlib

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Fetch
from upkeep.sources import Source

BUILT_IN = {
    "simulator": "upkeep.simulator.source:Simulator",
    "files": "upkeep.sources.files:Files",
    "sql": "upkeep.sources.sql:Sql",
    "cmapss": "upkeep.sources.cmapss:Cmapss",
}


def open_source(fetch: Fetch) -> Source:
    """Return the source that ``fetch.source`` names: a built-in one, or ``module:Class`` of the user's own.

    Raises
    ------
    UpkeepError
        If no such source can be imported.
    """
    module, _, name = BUILT_IN.get(fetch.source, fetch.source).partition(":")
    try:
        source: type[Source] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UpkeepError(
            f"the source {fetch.source!r} cannot be imported: {error}",
            expected=f"one of {', '.join(BUILT_IN)}, or 'module:Class' that can be imported",
            remedy="correct fetch.source in params.yaml",
            stage="fetch",
        ) from error
    return source(fetch.options, fetch.batch_days)
