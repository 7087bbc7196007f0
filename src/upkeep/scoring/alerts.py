"""Sends alarms to the planner's own system: each episode once, signed, and repeated until it is accepted.

Episodes are those of the report (:mod:`upkeep.judging.episodes`), so an alarm that never stops is sent again each
horizon. A maintenance or failure after an episode's start ends it.
"""

import hashlib
import hmac
import ipaddress
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import urllib3
from pydantic import AwareDatetime

from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_json
from upkeep.core.names import shorten
from upkeep.core.objects import read_object
from upkeep.core.params import Webhook
from upkeep.core.secrets import expand_variables, mask_credentials
from upkeep.core.threads import call_within
from upkeep.core.types import Frozen
from upkeep.judging.episodes import opens_episode

SECRET = "UPKEEP_WEBHOOK_SECRET"  # noqa: S105  # the variable's name, not its value

EXCHANGE_SECONDS = 10.0
"""From looking up the host to the status of its answer, whose body is not read."""

RUN_SECONDS = 120.0  # for all alarms of a run; the next run sends the rest

PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each attempt, unless the receiver asks for more."""


class Receiver(NamedTuple):
    """Where alarms go; `address` is the part of the URL that may be shown, since its path may hold a secret."""

    url: str
    headers: dict[str, str]
    secret: str
    address: str


class Exchange(NamedTuple):
    """One attempt to send an alarm: the fault if it was not accepted, whether to try again, and after how many seconds.

    `silence` is True if the receiver did not answer at all.
    """

    fault: str = ""
    again: bool = False
    pause: float = 0.0
    silence: bool = False


class Episode(Frozen):
    """An episode of an alarm: its start, the message to send, and whether the receiver has accepted it."""

    start: AwareDatetime
    alarm: dict[str, Any]
    accepted: bool


class Watch(Frozen):
    """A machine's state between runs: its newest scored row, whether that raises the alarm, and the latest episode."""

    time: AwareDatetime
    raised: bool = True
    episode: Episode | None


Watches = dict[str, Watch]  # by ``plant/machine``; whatever the plant is called, its own part holds no slash


def open_receiver(webhook: Webhook, setting: str = "score.webhook") -> Receiver:
    """Return the receiver that the setting names; an UpkeepError, which shows neither, for a wrong URL or secret."""
    secret = os.environ.get(SECRET)
    if not secret:
        raise UpkeepError(
            f"the environment variable {SECRET} is not set",
            remedy=f"export {SECRET}=..., the secret that signs alarms, which the receiver knows too",
        )
    url = read_url(webhook.url)
    if url.scheme not in ("http", "https") or not url.host:
        raise UpkeepError(
            f"{setting}.url is not a web address",
            remedy="set it in params.yaml to one, such as https://host/path; a / or @ in a password is %2F or %40",
        )
    if url.scheme == "http" and not (webhook.allow_http or _is_loopback(url.host)):
        raise UpkeepError(
            f"{setting}.url would send alarms to {url.host} unencrypted",
            remedy="use https, or set allow_http: true beside the URL in params.yaml if that network is trusted",
        )
    login = unquote(url.auth or "")
    headers = urllib3.make_headers(basic_auth=login, basic_auth_encoding="utf-8", user_agent="upkeep")
    port = f":{url.port}" if url.port else ""
    return Receiver(url._replace(auth=None).url, headers, secret, f"{url.scheme}://{url.host}{port}")


def read_url(template: str) -> urllib3.util.Url:
    """Return the parts of a web address, all None if it is not one; its password may hold any character."""
    scheme, _, rest = (template if "://" in template else expand_variables(template)).partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    user, at, host = authority.rpartition("@")
    filled = f"{expand_variables(user, partial(quote, safe=''))}{at}{expand_variables(host + rest[len(authority) :])}"
    # A password with a slash would end up in the host's name, which is looked up and shown.
    is_clear = bool(at) or ":" not in authority or "@" not in rest
    try:
        return urllib3.util.parse_url(f"{scheme}://{filled}" if is_clear else "")
    except urllib3.exceptions.LocationParseError:
        return urllib3.util.Url()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def follow_episodes(known: Mapping[str, Watch], scores: Iterable[Mapping[str, Any]]) -> Watches:
    """Return each machine's state after these scores; a score older than the known one changes nothing.

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
    # A row before the end of a service tells nothing about the machine after it.
    raised = score["alarm"] and not (serviced_at and serviced_at > time)
    if raised and (episode is None or opens_episode(episode.start, time, horizon)):
        episode = Episode(start=time, alarm=_describe_alarm(score, time), accepted=False)
    elif raised and episode:
        episode = episode.model_copy(update={"alarm": _describe_alarm(score, episode.start)})
    return Watch(time=time, raised=raised, episode=episode)


def _describe_alarm(score: Mapping[str, Any], start: datetime) -> dict[str, Any]:
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
    """Send each raised alarm that is not accepted yet; return the updated watches, and the faults of the others.

    Alarms that a busy or silent receiver did not take are sent again, up to five times, within `RUN_SECONDS` for all.
    """
    until = time.monotonic() + RUN_SECONDS
    waiting = {
        name: watch.episode
        for name, watch in watches.items()
        if watch.raised and watch.episode and not watch.episode.accepted
    }
    late = Exchange(f"no time was left of the {RUN_SECONDS:g} s for all alarms", again=True)
    exchanges = dict.fromkeys(waiting, late)
    with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=EXCHANGE_SECONDS)) as pool:
        for least in PAUSES:
            turn = [name for name, exchange in exchanges.items() if exchange.again]
            pause = max([least, *(exchanges[name].pause for name in turn)])
            if not turn or time.monotonic() + pause >= until:
                break
            time.sleep(pause)
            while turn and (left := until - time.monotonic()) > 0:
                name = turn.pop(0)
                exchange = _send(pool, receiver, waiting[name], min(EXCHANGE_SECONDS, left))
                if exchange.silence:  # the others wait for the next attempt, in which this one comes last
                    exchanges |= dict.fromkeys(turn, exchange)
                    turn = []
                del exchanges[name]
                exchanges[name] = exchange
    accepted = {
        name: watches[name].model_copy(update={"episode": episode.model_copy(update={"accepted": True})})
        for name, episode in waiting.items()
        if not exchanges[name].fault
    }
    return {**watches, **accepted}, [exchange.fault for exchange in exchanges.values() if exchange.fault]


def _send(pool: urllib3.PoolManager, receiver: Receiver, episode: Episode, seconds: float) -> Exchange:
    body = json.dumps(episode.alarm, ensure_ascii=False, separators=(",", ":")).encode()
    timestamp = str(int(time.time()))
    identity = json.dumps([episode.alarm[name] for name in ("plant", "machine", "episode")])
    headers = {
        **receiver.headers,
        "Content-Type": "application/json",
        "Idempotency-Key": hashlib.sha256(identity.encode()).hexdigest(),
        "X-Upkeep-Timestamp": timestamp,
        "X-Upkeep-Signature": sign(receiver.secret, timestamp, body),
    }
    ask = partial(pool.request, "POST", receiver.url, body=body, headers=headers, preload_content=False)
    try:
        answer = call_within(seconds, ask)
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        return Exchange(f"no answer: {shorten(mask_credentials(str(error)))}", again=True, silence=True)
    answer.close()  # the status is enough, and a body may be endless
    if 200 <= answer.status < 300:
        return Exchange()
    try:
        pause = float(min(urllib3.Retry().get_retry_after(answer) or 0, RUN_SECONDS))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        pause = 0.0
    return Exchange(f"HTTP status {answer.status}", answer.status == 429 or answer.status >= 500, pause)


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """Return the signature by which a receiver knows that an alarm is genuine and unchanged."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"sha256={digest}"


def read_watches(file: Path) -> Watches:
    """Read the last run's watches; none if there was no run, an UpkeepError if the file is damaged."""
    if not file.exists():
        return {}
    remedy = "delete the file; alarms that go on are then sent once more"
    return read_object(Watches, file, what="what is remembered of alarms", remedy=remedy)


def write_watches(file: Path, watches: Watches) -> None:
    """Replace the stored watches at once."""
    write_json(file, {name: watch.model_dump(mode="json") for name, watch in watches.items()})
