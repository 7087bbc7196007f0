"""The parameters as they ship, and their sections with some settings changed."""

from collections.abc import Mapping
from typing import Any, TypeVar

from conftest import ROOT

from upkeep.core.params import load_params
from upkeep.core.types import Frozen
from upkeep.sources import Source
from upkeep.sources.registry import open_source

SHIPPED = load_params(ROOT / "params.yaml")
LIMITS = SHIPPED.limits
S = TypeVar("S", bound=Frozen)


def changed(section: S, **settings: object) -> S:
    """Return a section with other settings, which are checked as those of params.yaml are."""
    return type(section).model_validate({**section.model_dump(by_alias=True), **settings})


def opened(source: str, options: Mapping[str, Any], **limits: int) -> Source:
    """Return a source of weekly batches, with other limits than those that ship if some are given."""
    fetch = changed(SHIPPED.fetch, source=source, options=options, batch_days=7)
    return open_source(fetch, changed(LIMITS, **limits))
