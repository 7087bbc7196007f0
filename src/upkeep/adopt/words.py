"""The words of ``words.yaml``, and what names and texts that have them tell."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml

Kind = Literal["error", "maintenance", "failure"]

WORDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
GERMAN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
OURS = ("plant", "machine", "time", "kind", "code")
IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def fold(text: str) -> str:
    """Return text in small letters without accents: ``Störung`` is ``stoerung``."""
    text = text.lower().translate(GERMAN)
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()


def words_of(name: str) -> set[str]:
    """Return the words of a column's name: of ``machineID`` and ``machine_id`` they are machine and id."""
    return set(re.findall(r"[a-z]+|\d+", fold(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))))


def has_word(name: str, group: str) -> bool:
    """Tell whether a column's name has a word of a group of ``words.yaml``."""
    return not words_of(name).isdisjoint(WORDS[group])


def names_one(name: str, group: str) -> bool:
    """Tell whether a column's name consists of words of a group, and such as ``id`` or ``no``."""
    return has_word(name, group) and words_of(name) <= {*WORDS[group], *WORDS["numbered"]}


def knows_ahead(name: str) -> bool:
    """Tell whether a column's name says that it knows the outcome: ``RUL`` or ``target``, not ``target_speed``."""
    return has_word(name, "ahead") and words_of(name) <= {*WORDS["ahead"], *WORDS["ahead_too"]}


def kind_of(text: str) -> Kind | None:
    """Return which kind of event a text speaks of, if it says so."""
    folded = fold(text)
    return next((kind for kind, parts in WORDS["kinds"].items() if any(part in folded for part in parts)), None)


def unit_of(name: str) -> str | None:
    """Return the unit that a column's name says: in brackets, or as its ending."""
    known = {end: unit for unit, ends in WORDS["units"].items() for end in ends}
    known |= {unit.lower().replace("/", "_"): unit for unit in WORDS["units"]["itself"]}
    if bracketed := re.search(r"[\[(]\s*([^\])\d\s][^\])\s]{0,9})\s*[\])]", name):
        return str(known.get(fold(bracketed[1]).replace("/", "_"), bracketed[1]))
    parts = _tidy(name).split("_")
    for ending in ("_".join(parts[-2:]), parts[-1]):
        if ending in known and len(parts) > ending.count("_") + 1:
            return str(known[ending])
    letters: dict[str, list[str]] = WORDS["letters"]
    unit, *needed = letters.get(parts[-1], [""])
    return unit if len(parts) > 1 and any(part in "_".join(parts) for part in needed) else None


def tidy_names(names: Iterable[str]) -> dict[str, str]:
    """Return the names that the dictionary has for delivered ones: identifiers, unless two would become one."""
    tidied = {name: name if IDENTIFIER.fullmatch(name) else _tidy(name) for name in names}
    taken = Counter(tidied.values())
    return {name: ours if taken[ours] == 1 and ours not in OURS else name for name, ours in tidied.items()}


def _tidy(name: str) -> str:
    folded = fold(name.replace("%", " pct ").replace("°", " deg "))
    return re.sub(r"\W+", "_", folded).strip("_") or name
