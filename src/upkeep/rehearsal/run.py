"""`upkeep rehearse`: runs each policy in each world, and writes what came of it."""

from collections.abc import Sequence
from contextlib import suppress
from typing import get_args

import polars as pl
from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_json
from upkeep.core.params import Params
from upkeep.core.pieces import LOADED, Frames, drop_oldest, recall
from upkeep.rehearsal.rehearse import POLICIES, WEEKS, Rehearsal, World
from upkeep.rehearsal.summary import draw_policy_costs, summarise, tabulate_policies
from upkeep.simulator.fleet import PlantChange

FOLDER = paths.REPORTS / "rehearsal"
CHANGES = ("none", *get_args(PlantChange))


def run(params: Params, size: World, seeds: int, changes: Sequence[str], policies: Sequence[str]) -> str:
    """Rehearse in worlds of this size, write ``reports/rehearsal``, and return the table for the terminal.

    Seeds count up from that of `size`; worlds without any change are always among those rehearsed. An interrupt keeps
    what has been done, and the next call goes on from there. An UpkeepError is raised if a change or a policy is
    unknown.
    """
    for what, names, known in (("change", changes, CHANGES), ("policy", policies, POLICIES)):
        if unknown := [name for name in names if name not in known]:
            raise UpkeepError(f"there is no {what} {unknown[0]}", remedy=f"choose of {', '.join(known)}")
    rehearsals = [
        (size._replace(seed=size.seed + number, change=change), policy)
        for number in range(seeds)
        for change in CHANGES
        if change in ("none", *changes)
        for policy in POLICIES
        if policy in policies
    ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    weeks = WEEKS.to_frame()
    with suppress(KeyboardInterrupt), parallel_config("loky", n_jobs=params.parallel.jobs, inner_max_num_threads=1):
        done = Parallel(return_as="generator_unordered")(delayed(rehearse_once)(*each, params) for each in rehearsals)
        for rows in tqdm(done, total=len(rehearsals), unit="rehearsal"):
            weeks.extend(rows)
            weeks.sort("seed", "change", "policy", "week").write_csv(FOLDER / "weeks.csv")
    if weeks.is_empty():
        return "interrupted before anything was done"
    drop_oldest(params.pieces)
    summary = summarise(weeks, params.evaluate.confidence)
    write_json(FOLDER / "summary.json", {"size": size._asdict(), "policies": summary.to_dicts()})
    (FOLDER / "cost.png").write_bytes(draw_policy_costs(weeks, summary)._repr_png_()[0])
    return tabulate_policies(summary)


def rehearse_once(world: World, policy: str, params: Params, *otherwise: object) -> pl.DataFrame:
    """Return the weeks of one policy in one world, recalled if they are kept; `otherwise` names what is not usual."""

    def make() -> Frames:
        return {"weeks": Rehearsal(world, policy, params).run()}

    settings = params.model_dump(mode="json", exclude={"parallel", "pieces"})
    made_from = [world, policy, settings, params.validate_.dictionary.read_bytes(), *otherwise]
    return recall(params.pieces, [*LOADED], made_from, make)["weeks"]
