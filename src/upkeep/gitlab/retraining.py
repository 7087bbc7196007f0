"""`upkeep retrain`: decide whether to train again, and offer the result as a merge request (docs/decisions/0006)."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta

import polars as pl
import yaml

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_whole
from upkeep.core.params import Fetch, Limits, Params, load_params
from upkeep.core.text import count_things
from upkeep.core.yaml import parse_yaml
from upkeep.gitlab import dvc
from upkeep.gitlab.gate import Verdict
from upkeep.gitlab.markdown import bullets, inert, show
from upkeep.gitlab.note import make_review
from upkeep.gitlab.reproduction import WRITTEN, bring_up_to_date
from upkeep.gitlab.snapshot import CommitFiles
from upkeep.gitlab.zones import Environment
from upkeep.judging.reports import Headline, Metrics
from upkeep.production.figures import live_figures
from upkeep.production.ledger import as_known, read_ledger
from upkeep.releases import git
from upkeep.releases.policies import Evidence, RealisedLoss, decide
from upkeep.sources.batches import first_day
from upkeep.sources.manifest import read_manifest
from upkeep.sources.registry import open_source
from upkeep.stages.drift import recent_drift

BRANCH = "retrain"  # the one that retrainings are offered on, so that there are never two merge requests
LABELS = ("new data", "drift", "loss", "age")  # of the merge request, one for each reason to train again
MOST_REASONS = 10  # of the gate's: a push option may have 64 kB
GATE = {True: "it may ship.", False: "it may not ship, so this is a draft."}
UNTIL = re.compile(
    r"""(^fetch:[^\n]*\n(?:(?:[ \t#][^\n]*)?\n)*?[ \t]+until:[ \t]*)["']?\d{4}-\d\d-\d\d["']?""", re.MULTILINE
)


def retrain(today: date, environment: Environment) -> str:
    """Train on new batches if there is a reason to, push the result as a merge request, and return what was done.

    What the gate refuses is offered as a draft: planners should see it, and nobody can merge it by mistake. What was
    done, or the error, is kept for `upkeep monitor` to show.
    """
    try:
        with _checked_out_target(environment) as (target, base):
            said = _retrain(today, target, base, environment.get("CI_JOB_URL"))
    except UpkeepError as error:
        write_whole(paths.RETRAINING, error.what.encode())
        raise
    write_whole(paths.RETRAINING, said.encode())
    return said


def _retrain(today: date, target: str, base: str, job: str | None) -> str:
    params = load_params()
    until, how = params.fetch.until, params.retrain
    age_days = (today - until).days - params.fetch.batch_days
    listed = new_batches(params.fetch, params.limits, today)
    if not listed:
        return _wait(params, age_days)
    standing, offered = _find_offer(base)
    arrived = listed if listed[-1] == offered else _bring(params, listed[-1])
    if arrived and arrived[-1] == offered:
        return f"nothing to add: the retraining up to the batch of {offered} stands on the branch {BRANCH}"
    losses = find_losses(base, today, params)
    reasons = decide(Evidence(arrived, age_days, lambda: recent_drift(load_params()), losses, offered), how)
    if not reasons:
        git.git("checkout", "--quiet", "HEAD", "--", str(paths.PARAMS), str(dvc.LOCK))
        if not arrived:
            return _wait(params, age_days)
        wanted = f"{how.new_batches} needed, and no drift or loss that lasts"
        if how.batches_between > 1:
            wanted += f"; the next retraining waits for {how.batches_between} batches after the last, merged or offered"
        if how.policy != "evidence":
            wanted = f"and retrain.policy is {how.policy}"
        return f"too early: {count_things(len(arrived), 'new batch')} after that of {until}, {wanted}"
    bring_up_to_date()
    dvc.push()  # before git's, so that nobody ever sees a lock without its data
    try:
        verdict = make_review(load_params(), base).verdict
    except UpkeepError as error:  # a gate that cannot judge lets nothing pass
        verdict = Verdict(False, [f"the gate could not judge: {error.what}"])
    options = describe_offer(target, arrived[-1], reasons, verdict, job)
    why = "; ".join(reasons.values())
    git.commit(f"Retrain up to {arrived[-1]}\n\n{inert(why)}", git.changed([str(paths.PARAMS), *WRITTEN]))
    answer = git.push(BRANCH, options=options, replacing=standing or "")
    gate = [f"The gate: {GATE[verdict.ships]}", *(f"- {reason}" for reason in verdict.reasons)]
    return "\n".join([f"offered to {target} on the branch {BRANCH}: {why}", *gate, answer]).rstrip()


@contextlib.contextmanager
def _checked_out_target(environment: Environment) -> Iterator[tuple[str, str]]:
    """Check out the newest commit of the branch to offer to; outside CI, what was there before again afterwards.

    ``UPKEEP_TARGET_BRANCH`` overrules GitLab's default branch.
    """
    branch = environment.get("UPKEEP_TARGET_BRANCH") or environment.get("CI_DEFAULT_BRANCH")
    if not branch:
        remedy = "outside of GitLab, which sets CI_DEFAULT_BRANCH: UPKEEP_TARGET_BRANCH=main upkeep retrain"
        raise UpkeepError("it is not known which branch to offer a retraining to", remedy=remedy)
    commit, in_job = git.fetch(branch), bool(environment.get("CI"))
    if not in_job and git.git("status", "--porcelain", "--untracked-files=no"):
        killed = "after a retraining that was killed: git checkout --force BRANCH && dvc checkout"
        what = "files differ from the newest commit, and a retraining commits what it changes"
        raise UpkeepError(what, remedy=f"commit them, or `git stash`; {killed}")
    former = git.git("branch", "--show-current") or git.git("rev-parse", "HEAD")
    # A job's checkout is its own, and an earlier job may have been stopped half-way.
    git.git("checkout", "--quiet", *["--force"] * in_job, "--detach", commit)
    try:
        yield branch, commit
    finally:
        if not in_job:
            git.git("checkout", "--quiet", "--force", former)
            dvc.restore()


def new_batches(fetch: Fetch, limits: Limits, today: date) -> list[date]:
    """List the complete batches after ``fetch.until``, without reading them."""
    newest = first_day(today, fetch.batch_days) - timedelta(days=fetch.batch_days)
    if newest <= fetch.until:
        return []
    tables = ("telemetry", "events") if fetch.rows_every_hours else ("telemetry",)
    batches = {delivery.batch for delivery in open_source(fetch, limits).deliveries(newest) if delivery.table in tables}
    return sorted(batch for batch in batches if fetch.until < batch <= newest)


def _wait(params: Params, age_days: int) -> str:
    until, most = params.fetch.until, params.retrain.max_age_days
    if age_days <= most:
        return f"nothing new: {params.fetch.source} has no complete batch after that of {until}"
    what = f"no telemetry has arrived for {age_days} days, so there is nothing to train on"
    expected = f"a batch at least every {most} days, retrain.max_age_days in params.yaml"
    remedy = "find out why the plants' deliveries stopped, or raise that number"
    raise UpkeepError(what, expected=expected, remedy=remedy, stage="fetch", batch=until)


def _find_offer(base: str) -> tuple[str | None, date | None]:
    """Return the commit that the branch offers already, and its ``fetch.until`` if it was made from `base`."""
    if git.tip(BRANCH) is None:
        return None, None
    commit = git.fetch(BRANCH, history=True)
    if not git.only_ours(f"{base}..{commit}"):
        what = f"the branch {BRANCH} holds commits that are not upkeep's, and each retraining overwrites it"
        raise UpkeepError(what, remedy=f"merge it, or move the commits to a branch of your own and delete {BRANCH}")
    if git.git("rev-list", "--count", f"{commit}..{base}") != "0":
        return commit, None
    try:
        offered = parse_yaml(git.read_committed(commit, paths.PARAMS))
        return commit, date.fromisoformat(str(offered["fetch"]["until"]))
    except (yaml.YAMLError, LookupError, TypeError, ValueError):  # nobody could merge it: it is made again
        return commit, None


def _bring(params: Params, newest: date) -> list[date]:
    """Fetch and validate up to `newest`, and move ``fetch.until``; return the new batches that have telemetry."""
    dvc.repro("dataset", allow_missing=False)  # what the champion was trained on, to measure drift against
    _set_until(params, newest)
    dvc.repro("fetch")
    files = read_manifest().files
    arrived = sorted({file.batch for file in files if file.table == "telemetry" and file.batch > params.fetch.until})
    if arrived:
        _set_until(params, arrived[-1])
        dvc.repro("validate")
    return arrived


def _set_until(params: Params, until: date) -> None:
    text = paths.PARAMS.read_bytes().decode()  # line ends stay as they are
    paths.PARAMS.write_bytes(advance(text, until).encode())
    wanted = params.model_copy(update={"fetch": params.fetch.model_copy(update={"until": until})})
    if load_params() != wanted:
        remedy = 'write it on a line of its own, indented below fetch: until: "2025-12-22"'
        what = "fetch.until cannot be moved on without changing other lines"
        raise UpkeepError(what, remedy=remedy, file=paths.PARAMS)


def advance(text: str, until: date) -> str:
    """Return the text of ``params.yaml`` with another ``fetch.until``, comments and layout unchanged."""
    return UNTIL.sub(rf'\g<1>"{until}"', text, count=1)


def find_losses(base: str, today: date, params: Params) -> dict[str, RealisedLoss]:
    """Return by plant the realised and the promised cost of the models of the commit `base`, where known."""
    try:
        ledger = read_ledger(params.production.ledger)
    except UpkeepError:
        return {}
    outcomes = as_known(ledger, datetime.combine(today + timedelta(days=1), time(), UTC)).filter(role="champion")
    if outcomes.is_empty():
        return {}
    files, found = CommitFiles(base), {}
    promised = files.read(paths.METRICS, Headline.model_validate_json)
    for plant, test in promised.plants.items() if promised else ():
        own = outcomes.filter(plant=plant, model_version=files.read_version(plant))
        if realised := weigh_outcomes(own, test, params):
            found[plant] = realised
    return found


def weigh_outcomes(outcomes: pl.DataFrame, test: Metrics, params: Params) -> RealisedLoss | None:
    """Return what a model's alarms have cost a plant and what its test figures promised; None if not known.

    Failures that no prediction covers are left out: another model would have missed them, too.
    """
    for live in live_figures(outcomes.filter(pl.col("outcome") != "not_covered"), params).iter_rows(named=True):
        failures = live["caught"] + live["defect_found"] + live["missed"]
        if live["cost_interval"] and failures and test.failures and test.cost is not None:
            return RealisedLoss(live["cost_interval"][0], test.cost / test.failures * failures)
    return None


def describe_offer(
    target: str, until: date, reasons: Mapping[str, str], verdict: Verdict, job: str | None
) -> list[str]:
    """Return the push options by which GitLab opens the merge request, or updates the open one."""
    paragraphs = [
        f"**Why:** {'; '.join(map(show, reasons.values()))}.",
        f"**The gate:** {GATE[verdict.ships]}",
        bullets(verdict.reasons, MOST_REASONS, ", see the note on this merge request").rstrip(),
        f"Made by [this job]({job})." if job else "",
    ]
    # A push option is one line, in which GitLab reads \n as a line break, also where the text itself has a backslash.
    description = "\n\n".join(filter(None, paragraphs)).replace("\\", "/").replace("\n", "\\n")
    return [
        "merge_request.create",
        f"merge_request.target={target}",
        f"merge_request.title={'' if verdict.ships else 'Draft: '}Retrain up to {until}",
        f"merge_request.description={description}",
        *(f"merge_request.{'label' if label in reasons else 'unlabel'}={label}" for label in LABELS),
        "merge_request.remove_source_branch",
    ]
