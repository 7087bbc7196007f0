"""Continuous training: whether to train again on what has arrived, and the merge request that offers the result.

docs/decisions/0006-retraining.md says why it decides as it does.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Fetch, Limits, Params, Retrain, load_params
from upkeep.core.text import count_things
from upkeep.gitlab import dvc, git
from upkeep.gitlab.gate import Verdict
from upkeep.gitlab.markdown import inert
from upkeep.gitlab.offer import BRANCH, describe_offer, find_offer, state_gate
from upkeep.gitlab.reproduction import WRITTEN, bring_up_to_date
from upkeep.sources.batches import first_day
from upkeep.sources.manifest import read_manifest
from upkeep.sources.registry import open_source
from upkeep.stages.drift import recent_drift

YEARS = range(2000, 2200)
"""What a clock may say; other years are slips."""

UNTIL = re.compile(
    r"""(^fetch:[^\n]*\n(?:(?:[ \t#][^\n]*)?\n)*?[ \t]+until:[ \t]*)["']?\d{4}-\d\d-\d\d["']?""", re.MULTILINE
)

Environment = Mapping[str, str]


def retrain(environment: Environment) -> str:
    """Train on the batches that have arrived, if there is a reason to, and offer the result; return what was done.

    ``UPKEEP_TARGET_BRANCH`` and ``UPKEEP_TODAY`` overrule GitLab's default branch and the clock. What the gate refuses
    is offered as a draft: planners should see it, and nobody can merge it by mistake. Raises the UpkeepError of the
    stage which failed, or that no data has arrived for too long, or that git refuses.
    """
    target = _target(environment)
    with _checked_out(target, environment) as base:
        return _retrain(read_clock(environment), target, base, environment.get("CI_JOB_URL"))


def _retrain(today: date, target: str, base: str, job: str | None) -> str:
    params = load_params()
    age_days = (today - params.fetch.until).days - params.fetch.batch_days
    listed = new_batches(params.fetch, params.limits, today)
    if not listed:
        return _wait(params, 0, age_days)
    standing, offered = find_offer(base)
    if listed[-1] == offered:
        return _nothing_to_add(offered)
    arrived = _bring(params, listed[-1])
    if arrived and arrived[-1] == offered:
        return _nothing_to_add(offered)
    reasons = decide(arrived, recent_drift(load_params()) if arrived else {}, age_days, params.retrain)
    if not reasons:
        git.git("checkout", "--quiet", "HEAD", "--", str(paths.PARAMS), str(dvc.LOCK))
        return _wait(params, len(arrived), age_days)
    bring_up_to_date()
    dvc.push()  # before git's, so that nobody ever sees a lock without its data
    verdict = _judge(base)
    options = describe_offer(target, arrived[-1], reasons, verdict, job)
    why = "; ".join(reasons.values())
    git.commit(f"Retrain up to {arrived[-1]}\n\n{inert(why)}", git.changed([str(paths.PARAMS), *WRITTEN]))
    answer = git.push(BRANCH, options=options, replacing=standing or "")
    gate = [f"The gate: {state_gate(verdict)}", *(f"- {reason}" for reason in verdict.reasons)]
    return "\n".join([f"offered to {target} on the branch {BRANCH}: {why}", *gate, answer]).rstrip()


def read_clock(environment: Environment) -> date:
    """Return today: ``UPKEEP_TODAY``, for tests and to fill in the past, or the clock's day in UTC."""
    text = environment.get("UPKEEP_TODAY")
    if not text:
        return datetime.now(UTC).date()
    with contextlib.suppress(ValueError):
        today = date.fromisoformat(text)
        if today.year in YEARS:
            return today
    raise UpkeepError(f"UPKEEP_TODAY is {text!r}", remedy="set it to a date such as 2025-12-29, or unset it")


def new_batches(fetch: Fetch, limits: Limits, today: date) -> list[date]:
    """List the batches of telemetry after ``fetch.until`` that are complete today; the source is listed, not read."""
    newest = first_day(today, fetch.batch_days) - timedelta(days=fetch.batch_days)
    if newest <= fetch.until:
        return []
    deliveries = open_source(fetch, limits).deliveries(newest)
    batches = {delivery.batch for delivery in deliveries if delivery.table == "telemetry"}
    return sorted(batch for batch in batches if fetch.until < batch <= newest)


def decide(
    batches: Sequence[date], drifted: Mapping[str, Sequence[bool]], age_days: int, how: Retrain
) -> dict[str, str]:
    """Return why to train again, by label and in words; nothing if there is no reason.

    `batches` are the first days of those that were not trained on, in order; without one there is never a reason, as
    the same data gives the same models. `drifted` says by plant whether it drifted in each of the last windows, the
    newest first, and `age_days` how many days ago the last batch trained on ended.
    """
    reasons: dict[str, str] = {}
    if not batches:
        return reasons
    if len(batches) >= how.new_batches:
        reasons["new data"] = f"{count_things(len(batches), 'new batch')} up to that of {batches[-1]}"
    lasting = [
        f"{plant} in {sum(windows)} of its last {how.drift_windows} windows"
        for plant, windows in drifted.items()
        if windows[0] and sum(windows) >= how.drift_needed
    ]
    if lasting:
        reasons["drift"] = f"drift of {', '.join(lasting)}"
    if age_days > how.max_age_days:
        reasons["age"] = f"the models know nothing of the last {age_days} days"
    return reasons


def advance(text: str, until: date) -> str:
    """Return the text of ``params.yaml`` with another ``fetch.until``; comments and layout stay."""
    return UNTIL.sub(rf'\g<1>"{until}"', text, count=1)


def _target(environment: Environment) -> str:
    branch = environment.get("UPKEEP_TARGET_BRANCH") or environment.get("CI_DEFAULT_BRANCH")
    if not branch:
        raise UpkeepError(
            "it is not known which branch to offer a retraining to",
            remedy="outside of GitLab, which sets CI_DEFAULT_BRANCH: UPKEEP_TARGET_BRANCH=main upkeep retrain",
        )
    return branch


@contextlib.contextmanager
def _checked_out(branch: str, environment: Environment) -> Iterator[str]:
    """Have the branch's newest commit in the working tree, whatever was there before and outside of CI will be again.

    No branch here is moved: only the remote's one gets the retraining.
    """
    commit = git.fetch(branch)
    if environment.get("CI"):  # a job's checkout is its own, and an earlier job may have been stopped half-way
        git.git("checkout", "--quiet", "--force", "--detach", commit)
        yield commit
        return
    if git.git("status", "--porcelain", "--untracked-files=no"):
        raise UpkeepError(
            "files differ from the newest commit, and a retraining commits what it changes",
            remedy="commit them, or `git stash`; after a retraining that was killed: "
            "git checkout --force BRANCH && dvc checkout",
        )
    former = git.git("branch", "--show-current") or git.git("rev-parse", "HEAD")
    git.git("checkout", "--quiet", "--detach", commit)
    try:
        yield commit
    finally:
        git.git("checkout", "--quiet", "--force", former)
        dvc.restore()


def _bring(params: Params, newest: date) -> list[date]:
    """Fetch and validate what is new; return the batches that did arrive, with ``fetch.until`` at the last of them.

    A source may list a batch by its calendar and then have no rows of it.
    """
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
        raise UpkeepError(
            "fetch.until cannot be moved on without changing other lines",
            remedy='write it on a line of its own, indented below fetch: until: "2025-12-22"',
            file=paths.PARAMS,
        )


def _wait(params: Params, batches: int, age_days: int) -> str:
    until, how = params.fetch.until, params.retrain
    if batches:
        new = count_things(batches, "new batch")
        return f"too early: {new} after that of {until}, {how.new_batches} needed, and no drift that lasts"
    if age_days <= how.max_age_days:
        return f"nothing new: {params.fetch.source} has no complete batch after that of {until}"
    raise UpkeepError(
        f"no telemetry has arrived for {age_days} days, so there is nothing to train on",
        expected=f"a batch at least every {how.max_age_days} days, retrain.max_age_days in params.yaml",
        remedy="find out why the plants' deliveries stopped, or raise that number",
        stage="fetch",
        batch=until,
    )


def _judge(base: str) -> Verdict:
    from upkeep.gitlab.note import make_review  # slow to import, and most days there is nothing to judge

    try:
        return make_review(load_params(), base).verdict
    except UpkeepError as error:  # a gate that cannot judge lets nothing pass
        return Verdict(False, [f"the gate could not judge: {error.what}"])


def _nothing_to_add(until: date) -> str:
    return f"nothing to add: the retraining up to the batch of {until} stands on the branch {BRANCH}"
