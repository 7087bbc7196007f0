"""Raw deliveries in; clean tables, the quarantine and a report of the data's quality out."""

import logging
import shutil
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from itertools import chain, starmap
from typing import Any, NamedTuple

from upkeep.contract.dictionary import TABLES, Dictionary, load_dictionary
from upkeep.contract.findings import (
    add_suggestion,
    find_missing_batches,
    find_renamed_machines,
    find_unknown_machines,
    find_unwatched_failures,
    sort_findings,
)
from upkeep.contract.validation import Checked
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_json
from upkeep.core.parallel import map_plants
from upkeep.core.params import Params
from upkeep.core.pieces import drop_oldest, make_anew, recall
from upkeep.core.text import ALIKE, MEND, command_to_read_again, nearest_name, pair_alike, tell_apart
from upkeep.sources.excess import Excess, find_excess, refuse_excess
from upkeep.sources.interim import check_deliveries, write_tables
from upkeep.sources.manifest import Manifest, empty_manifest, raise_without_telemetry, read_manifest
from upkeep.sources.registry import BUILT_IN

CODE = ("contract", "core", "simulator", "sources", "stages/validate.py")

logger = logging.getLogger(__name__)


class PlantReport(NamedTuple):
    """A plant's part of the report, the tables that lost too many rows, and whether it has failures of known machines.

    `strangers` describes the failures of machines that telemetry spells differently or lacks, None if there are none;
    `unwatched` those of the others, if none of them is in its machine's readings.
    """

    quality: dict[str, Any]
    excess: list[Excess]
    has_failures: bool
    strangers: str | None
    unwatched: str | None


def run(params: Params) -> None:
    """Write clean tables and the quarantine, per plant, and ``reports/data_quality.json``.

    Raises UpkeepError if a raw file is damaged, or a pinned one would be read with other options than it was fetched
    with, or more than ``validate.max_quarantined_share`` of a table is in quarantine. In the last case everything has
    been written before, so that the quarantine can be looked at.
    """
    dictionary = load_dictionary(params.validate_.dictionary)
    manifest = read_manifest()
    if params.fetch.mode == "reference" and manifest.with_files(()) != empty_manifest(params.fetch):
        raise UpkeepError("fetch.options are not those that data/raw was fetched by", remedy="run `dvc repro fetch`")
    raise_without_telemetry(manifest.files, params.fetch)
    for folder in (*TABLES, paths.QUARANTINE.name):
        shutil.rmtree(paths.INTERIM / folder, ignore_errors=True)  # it may hold plants that are gone
    plants = sorted({file.plant for file in manifest.files})
    for first, second in starmap(tell_apart, pair_alike(plants)):
        logger.warning("plants %s and %s %s", first, second, ALIKE)
    for plant in sorted(dictionary.plants.keys() - plants):
        named = add_suggestion(plant, nearest_name(plant, plants))
        logger.warning("%s describes a plant that delivers nothing: %s", params.validate_.dictionary, named)
    reports = map_plants(_validate_plant, plants, params.parallel, manifest, dictionary, params)
    drop_oldest(params.pieces)
    write_json(paths.DATA_QUALITY, {"plants": {plant: report.quality for plant, report in reports.items()}})
    refuse_excess([table for report in reports.values() for table in report.excess], params.validate_)
    _judge_strangers(reports)


def _judge_strangers(reports: Mapping[str, PlantReport]) -> None:
    """Warn of failures that no reading comes before; raise an UpkeepError if telemetry lacks the machines of all."""
    strangers = {plant: report.strangers for plant, report in reports.items() if report.strangers}
    unwatched = {plant: report.unwatched for plant, report in reports.items() if report.unwatched}
    for plant, detail in (*strangers.items(), *unwatched.items()):
        logger.warning("plant %s, events: %s", plant, detail)
    if strangers and not any(report.has_failures for report in reports.values()):
        plant, detail = next(iter(strangers.items()))
        alike = "name plants and machines alike in all tables, or set fetch.rows_every_hours for plants of events only"
        raise UpkeepError(
            f"no failure is of a machine that telemetry has, so each row would count as healthy: {detail}",
            remedy=f"{alike}; {MEND} and type {command_to_read_again()}",
            plant=plant,
            table="events",
        )


def _validate_plant(plant: str, manifest: Manifest, dictionary: Dictionary, params: Params) -> PlantReport:
    files = [file for file in manifest.files if file.plant == plant]
    # The code of a user's own source is not part of a piece's name.
    foreign = params.fetch.mode == "reference" and params.fetch.source not in BUILT_IN
    keep = make_anew if foreign else partial(recall, params.pieces, CODE)
    checked = check_deliveries(plant, files, paths.RAW, dictionary, params, keep)
    write_tables(plant, checked, paths.INTERIM)
    batches = [file.batch for file in files if file.table == "telemetry"]
    newest = max(file.batch for file in manifest.files)
    findings = find_missing_batches("telemetry", batches, newest, params.fetch.batch_days)
    findings += sort_findings(manifest.findings)
    findings += (finding for table in TABLES for finding in checked[table].findings)
    findings += sort_findings(find_renamed_machines(checked["telemetry"].clean))
    known = checked["telemetry"].clean["machine"].unique()
    watched = {file.plant for file in manifest.files if file.table == "telemetry"}
    other = None if plant in watched else nearest_name(plant, watched)
    unknown = {
        table: find_unknown_machines(table, checked[table].clean, known, other) for table in ("events", "machines")
    }
    failures = checked["events"].clean.filter(kind="failure")
    failed = failures["machine"].is_in(known.implode())
    slack = timedelta(days=params.fetch.batch_days)
    unwatched = find_unwatched_failures(failures, checked["telemetry"].clean, slack)
    findings += chain(*unknown.values(), unwatched)
    quality = {"tables": {table: _count_rows(checked[table]) for table in TABLES}, "findings": findings}
    excess = find_excess(plant, checked, params.validate_, paths.QUARANTINE)
    strangers = None if failed.all() else unknown["events"][0]["detail"]
    return PlantReport(quality, excess, failed.any(), strangers, next((found["detail"] for found in unwatched), None))


def _count_rows(checked: Checked) -> dict[str, Any]:
    reasons = checked.quarantined["reason"].value_counts().sort("reason")
    reduced = {} if checked.kept == checked.clean.height else {"reduced_to": checked.clean.height}
    return {
        "rows_in": checked.rows_in,
        "clean": checked.kept,
        **reduced,
        "duplicates": checked.duplicates,
        "quarantined": dict(reasons.iter_rows()),
    }
