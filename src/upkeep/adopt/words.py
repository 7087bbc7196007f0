"""What names and texts mean by their words, which ``words.yaml`` lists."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from upkeep.contract.dictionary import NEEDED, STATISTICS, is_reserved, name_statistic
from upkeep.core.names import MAX_NAME, UNPRINTABLE
from upkeep.core.yaml import parse_yaml
from upkeep.sources.file_options import Kind

WORDS: dict[str, Any] = parse_yaml(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
SPELT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ł": "l", "ø": "o", "đ": "d"})
ACCENTS = r"(?<=[a-z])[\u0300-\u036f]+"
WORD = r"[a-z]+|[^\W\d_a-z]+|\d+"  # in Latin letters or others, or a number
OURS = {name for needed in NEEDED.values() for name in needed}
MOST_KINDS = 30  # of events, or of failures, that a column tells apart
MOST_LETTERS = 1000  # of a text that is looked at for words
IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def is_kept(name: str) -> bool:
    """Tell whether a name can be written in a draft: YAML keeps line breaks, but no other unprintable characters."""
    return len(name) <= MAX_NAME and not re.search(UNPRINTABLE, name.replace("\n", " "))


def fold(text: str) -> str:
    """Return text in lower case without Latin letters' accents: ``Störung`` becomes ``stoerung``."""
    text = unicodedata.normalize("NFC", text).lower().translate(SPELT)
    return unicodedata.normalize("NFC", re.sub(ACCENTS, "", unicodedata.normalize("NFKD", text).lower()))


def words_of(name: str) -> set[str]:
    """Return the words of a column's name: those of ``machineID`` and ``machine_id`` are machine and id."""
    return set(_split_words(name))


def _split_words(text: str) -> list[str]:
    return re.findall(WORD, fold(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text)))


def has_word(name: str, group: str) -> bool:
    """Tell whether a column's name has a word of a group of ``words.yaml``."""
    return not words_of(name).isdisjoint(WORDS[group])


def names_one(name: str, group: str, others: str = "numbered") -> bool:
    """Tell whether a column's name has a word of a group, and no words but these and `others`, such as ``id``."""
    return has_word(name, group) and words_of(name) <= {*WORDS[group], *WORDS[others]}


def kind_of(text: str) -> Kind | None:
    """Return the kind of event that a text names, if any."""
    folded = fold(text[:MOST_LETTERS])
    if re.match(rf"({'|'.join(WORDS['denied'])})[\W_]+[a-z]", folded):
        return None
    words = f" {' '.join(_split_words(text[:MOST_LETTERS]))}"
    return next((kind for kind, parts in WORDS["kinds"].items() if any(part in words for part in parts)), None)


def unit_of(name: str) -> str | None:
    """Return the unit in a column's name: in brackets, or as its ending."""
    known = {end: unit for unit, ends in WORDS["units"].items() for end in ends}
    known |= {unit.lower().replace("/", "_"): unit for unit in WORDS["units"]["itself"]}
    name = name.replace(" (again)", "")  # of the second column of a name
    bracketed = re.search(r"[\[(]\s*([^\])\d\s][^\])\s]{0,9})\s*[\])]", name)
    if bracketed and bracketed[1].isprintable():
        return str(known.get(fold(bracketed[1]).replace("/", "_"), bracketed[1]))
    parts = _tidy(name).split("_")
    for ending in ("_".join(parts[-2:]), parts[-1]):
        if ending in known and len(parts) > ending.count("_") + 1:
            return str(known[ending])
    unit, *needed = WORDS["letters"].get(parts[-1], [""])
    return unit if len(parts) > 1 and any(part in "_".join(parts) for part in needed) else None


def tidy_names(names: Iterable[str]) -> dict[str, str]:
    """Return the dictionary's names for delivered ones: identifiers, unless two names would become the same.

    A reserved name, one that is taken, or one like that of a statistic is put in brackets.
    """
    endings = tuple(name_statistic("", statistic) for statistic in STATISTICS)
    tidied = {name: name if IDENTIFIER.fullmatch(name) else _tidy(name) for name in names}
    count, chosen, taken = Counter(tidied.values()), dict[str, str](), {*OURS}
    for name, ours in tidied.items():
        plain = ours if re.search(UNPRINTABLE, name) or (count[ours] == 1 and ours not in OURS) else name
        while is_reserved(plain) or plain in taken or plain.endswith(endings):
            plain = f"({plain})"
        chosen[name] = plain
        taken.add(plain)
    return chosen


def _tidy(name: str) -> str:
    folded = fold(name.replace("%", " pct ").replace("°", " deg "))
    return re.sub(r"\W+", "_", folded).strip("_")[:MAX_NAME] or re.sub(UNPRINTABLE, "_", name)
