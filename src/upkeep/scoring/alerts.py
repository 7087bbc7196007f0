"""Alarms sent to the planner's own system: each episode once, signed, and again until it is accepted.

Episodes are those that the report counts and costs (:mod:`upkeep.judging.episodes`), so an alarm that never stops is
sent anew each horizon. A maintenance or failure after an episode began ends it at once.
"""

import hashlib
import hmac
import ipaddress
import json
import os
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import urllib3
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_whole
from upkeep.core.params import Webhook
from upkeep.core.secrets import expand_variables
from upkeep.core.types import Frozen
from upkeep.judging.episodes import opens_episode

SECRET = "UPKEEP_WEBHOOK_SECRET"  # noqa: S105  # the variable's name, not its value

TIMEOUT = urllib3.Timeout(connect=5, read=10)
RETRIES = urllib3.Retry(
    total=5,
    redirect=False,  # a redirected POST may arrive as a GET, or elsewhere
    status_forcelist=[429, *range(500, 600)],
    allowed_methods=["POST"],  # Idempotency-Key lets the receiver see that it has had an alarm already
    backoff_factor=0.5,
    retry_after_max=60,
    raise_on_status=False,
)


class Receiver(NamedTuple):
    """Where alarms go; `address` is what may be shown of the URL, whose path may hold a secret too."""

    url: str
    headers: dict[str, str]
    secret: str
    address: str


class Episode(Frozen):
    """What one visit answers: when it began, what the receiver is sent, and whether it has accepted that."""

    start: AwareDatetime
    alarm: dict[str, Any]
    accepted: bool


class Watch(Frozen):
    """What is remembered of a machine: its newest scored row, whether that raises the alarm, and the latest episode."""

    time: AwareDatetime
    raised: bool = True
    episode: Episode | None


Watches = dict[str, Watch]
"""By ``plant/machine``; whatever the plant is called, its own part holds no slash."""

WATCHES = TypeAdapter(Watches)


def open_receiver(webhook: Webhook) -> Receiver:
    """Return where alarms go; an error that shows neither says that the URL or the secret cannot be used."""
    secret = os.environ.get(SECRET)
    if not secret:
        raise UpkeepError(
            f"the environment variable {SECRET} is not set",
            remedy=f"export {SECRET}=..., the secret that signs alarms, which the receiver knows too",
        )
    try:
        url = urllib3.util.parse_url(expand_variables(webhook.url))
    except urllib3.exceptions.LocationParseError:
        url = urllib3.util.Url()
    if url.scheme not in ("http", "https") or not url.host:
        raise UpkeepError(
            "score.webhook.url is not a web address", remedy="set it in params.yaml to one, such as https://host/path"
        )
    if url.scheme == "http" and not (webhook.allow_http or _is_loopback(url.host)):
        raise UpkeepError(
            f"score.webhook.url would send alarms to {url.host} unencrypted",
            remedy="use https, or set allow_http: true beside the URL in params.yaml if that network is trusted",
        )
    headers = urllib3.make_headers(basic_auth=url.auth) if url.auth else {}
    port = f":{url.port}" if url.port else ""
    return Receiver(url._replace(auth=None).url, headers, secret, f"{url.scheme}://{url.host}{port}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def follow_episodes(known: Mapping[str, Watch], scores: Iterable[Mapping[str, Any]]) -> Watches:
    """Return what is known of each machine after these scores; a score older than what is known changes nothing.

    Scores are rows of :attr:`upkeep.scoring.newest.Scored.predictions`.
    """
    watches = dict(known)
    for score in scores:
        name = f"{quote(score['plant'], safe='')}/{score['machine']}"
        before = known.get(name)
        if before is None or score["time"] >= before.time:
            watches[name] = _follow_machine(before.episode if before else None, score)
    return watches


def _follow_machine(episode: Episode | None, score: Mapping[str, Any]) -> Watch:
    time, serviced_at, horizon = score["time"], score["serviced_at"], timedelta(hours=score["horizon_hours"])
    if episode and serviced_at and serviced_at > episode.start:
        episode = None
    # A row before the service says nothing of the machine after it.
    raised = score["alarm"] and not (serviced_at and serviced_at > time)
    if raised and (episode is None or opens_episode(episode.start, time, horizon)):
        episode = Episode(start=time, alarm=_describe(score, time), accepted=False)
    elif raised and episode:
        episode = episode.model_copy(update={"alarm": _describe(score, episode.start)})
    return Watch(time=time, raised=raised, episode=episode)


def _describe(score: Mapping[str, Any], start: datetime) -> dict[str, Any]:
    maintained_at = score["maintained_at"]
    return {
        "plant": score["plant"],
        "machine": score["machine"],
        "episode": _iso(start),
        "time": _iso(score["time"]),
        "probability": score["probability"],
        "threshold": score["threshold"],
        "reasons": score["reasons"],
        "warnings": [warning["message"] for warning in score["warnings"]],
        "last_maintenance": maintained_at and {"time": _iso(maintained_at), "code": score["maintenance_code"]},
        "model_version": score["model_version"],
    }


def _iso(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def send_alarms(receiver: Receiver, watches: Mapping[str, Watch]) -> tuple[Watches, list[str]]:
    """Send each alarm that is raised and not accepted yet; one that is refused leaves the others their turn.

    Returns the watches with what is accepted now, and why each of the other alarms was not.
    """
    sent = dict(watches)
    faults = []
    waiting = {
        name: watch.episode
        for name, watch in watches.items()
        if watch.raised and watch.episode and not watch.episode.accepted
    }
    with urllib3.PoolManager(retries=RETRIES, timeout=TIMEOUT) as pool:
        for position, (name, episode) in enumerate(waiting.items()):
            try:
                status = _post(pool, receiver, episode)
            except urllib3.exceptions.HTTPError as error:
                # Not the error itself, which names the whole URL. The other alarms would only wait as long each.
                faults += [f"no answer: {getattr(error, 'reason', type(error).__name__)}"] * (len(waiting) - position)
                break
            if 200 <= status < 300:
                accepted = episode.model_copy(update={"accepted": True})
                sent[name] = watches[name].model_copy(update={"episode": accepted})
            else:
                faults.append(f"HTTP status {status}")
    return sent, faults


def _post(pool: urllib3.PoolManager, receiver: Receiver, episode: Episode) -> int:
    alarm = episode.alarm
    body = json.dumps(alarm, ensure_ascii=False, separators=(",", ":")).encode()
    timestamp = str(int(time.time()))
    identity = json.dumps([alarm["plant"], alarm["machine"], alarm["episode"]])
    headers = {
        **receiver.headers,
        "Content-Type": "application/json",
        "Idempotency-Key": hashlib.sha256(identity.encode()).hexdigest(),
        "X-Upkeep-Timestamp": timestamp,
        "X-Upkeep-Signature": sign(receiver.secret, timestamp, body),
    }
    return pool.request("POST", receiver.url, body=body, headers=headers).status


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """Return the header by which a receiver knows that an alarm is from here and was not changed on its way."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"sha256={digest}"


def read_watches(file: Path) -> Watches:
    """Read what the last run remembered; nothing if there was none, an error if the file is damaged."""
    try:
        return WATCHES.validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        raise UpkeepError(
            f"what is remembered of alarms cannot be read: {error.errors()[0]['msg']}",
            remedy="delete the file; alarms that go on are then sent once more",
            file=file,
        ) from error


def write_watches(file: Path, watches: Watches) -> None:
    """Remember what is known of alarms, in one step."""
    write_whole(file, WATCHES.dump_json(watches, indent=1))
