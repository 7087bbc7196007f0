"""Plants and machines called alike in all tables, by columns, folders and files, or by a name for all rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from upkeep.adopt.columns import Guess, Part
from upkeep.adopt.words import WORDS, has_word, names_one, words_of
from upkeep.contract.casting import cast_column


def match_parts(looked: Sequence[Part]) -> list[Part]:
    """Return the parts, with a plant or machine where files or folders are called as those of other tables are.

    Machines in file names such as ``data_press-1.csv`` are cut to the names in other tables.
    """
    looked = _match_columns(looked)
    known = known_names(looked)
    return [_cut_machines(_match_names(part, known), known["machine"]) for part in looked]


def _match_columns(looked: Sequence[Part]) -> list[Part]:
    """Return the parts, the machines of each in a column called so that has those of other tables, if one has.

    If no table names machines, what identifies the rows of all tables does.
    """
    numbered = {*WORDS["numbered"]}
    if not known_names(looked, in_paths=True)["machine"]:
        shared = set.intersection(*({*part.layout.rows.columns} for part in looked))
        ids = (name for name in sorted(shared) if has_word(name, "numbered") and not words_of(name) <= numbered)
        key = next((name for name in ids if any(is_static(part) and _is_key(part, name) for part in looked)), None)
        return [_name_machines(part, key, "it is in all tables") for part in looked] if key else [*looked]
    found = [*looked]
    for place, part in enumerate(found):
        known = known_names([*found[:place], *found[place + 1 :]])["machine"]
        for name in part.measured + part.text if known.isdisjoint(known_names([part])["machine"]) else ():
            is_number = is_static(part) and words_of(name) <= numbered and _is_key(part, name)
            names = {*as_names(part.layout.rows[name]).drop_nulls()}
            shares = 2 * len(names & known) >= min(len(names), len(known)) > 0
            if shares and (is_number or names_one(name, "machine")):
                found[place] = _name_machines(part, name, "it has the machines of other tables")
                break
    return found


def _match_names(part: Part, known: Mapping[str, set[str]]) -> Part:
    for column in {name: None for facts in part.layout.facts for name in facts}:
        names = {facts[column] for facts in part.layout.facts if not facts[column].isdigit()}
        for ours in known:
            guess = part.guesses.get(ours)
            if names & known[ours] and (not guess or guess.column in {*part.placeholders} - {column}):
                others = {name: guess for name, guess in part.guesses.items() if guess.column != column}
                found = Guess(f"another table has {ours}s of these names", column)
                part = replace(part, guesses={**others, ours: found})
    return part


def _cut_machines(part: Part, known: set[str]) -> Part:
    column = part.columns.get("machine", "")
    names = {facts[column] for facts in part.layout.facts} if column in part.placeholders else set[str]()
    if names and not names & known:
        cuts = (name.partition(machine) for name in sorted(names)[:20] for machine in sorted(known, key=len))
        for before, _, after in (cut for cut in cuts if cut[1]):
            if all(name.startswith(before) and name.endswith(after) for name in names):
                return replace(part, layout=part.layout.trimmed(column, before, after))
    return part


def _name_machines(part: Part, column: str, reason: str) -> Part:
    """Return a part whose machines stand in this column; a column that was taken for them becomes a text."""
    measured, text = ([name for name in names if name != column] for names in (part.measured, part.text))
    former = part.columns.get("machine")
    guesses = {**part.guesses, "machine": Guess(reason, column)}
    return replace(part, guesses=guesses, measured=measured, text=[*text, *([former] if former else [])])


def find_constants(looked: Sequence[Part]) -> dict[str, Guess]:
    """Return plant and machine for rows without them: the only one in other tables, or a made-up name."""
    constants = {}
    for ours, names in known_names(looked, in_paths=True).items():
        constants[ours] = Guess("no column tells, so all rows are of one; give it its name", value=f"{ours}-1")
        if len(names) == 1:
            constants[ours] = Guess("the only one that other tables name", value=names.pop())
    return constants


def known_names(looked: Sequence[Part], *, in_paths: bool = False) -> dict[str, set[str]]:
    """Return the plants and machines that columns of tables name, and those that only paths do if `in_paths`."""
    known: dict[str, set[str]] = {"plant": set(), "machine": set()}
    for part in looked:
        for ours, column in part.columns.items():
            if in_paths or column not in part.placeholders:
                known[ours] |= {*as_names(part.layout.rows[column]).drop_nulls().unique()}
    return known


def _is_key(part: Part, column: str) -> bool:
    return part.layout.rows[column].n_unique() == part.layout.rows.height


def is_static(part: Part) -> bool:
    """Tell whether a part's rows have no time but that of installation."""
    return part.clock is None or has_word(part.clock.column, "installed")


def as_names(column: pl.Series) -> pl.Series:
    """Return the names of plants or machines as ``validate`` has them: 7 for 7.0 of a column of numbers."""
    text = cast_column(column.name, column.dtype, "text").value
    return column.to_frame().select(text.alias(column.name)).to_series()
