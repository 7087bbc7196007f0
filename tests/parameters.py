"""The parameters as they ship, and their sections with some settings changed."""

from typing import TypeVar

from conftest import ROOT

from upkeep.core.params import load_params
from upkeep.core.types import Frozen

SHIPPED = load_params(ROOT / "params.yaml")
S = TypeVar("S", bound=Frozen)


def changed(section: S, **settings: object) -> S:
    """Return a section with other settings, which are checked as those of params.yaml are."""
    return type(section).model_validate({**section.model_dump(by_alias=True), **settings})
