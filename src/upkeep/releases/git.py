"""Runs git and other programs; pushes with GitLab's tokens and options, without a token ever showing."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import mask_values

Environment = Mapping[str, str]

TOKEN = "UPKEEP_GITLAB_TOKEN"  # noqa: S105  # the variable's name, not its value
RELEASE_TOKEN = "UPKEEP_RELEASE_TOKEN"  # noqa: S105  # as above; makes protected tags, TOKEN where it is not set
AUTHOR, EMAIL = "upkeep", "upkeep@localhost"
MOST_BYTES = 10_000_000  # of a file of a commit, which a branch may have grown to any size
ASK_DOCTOR = "run `upkeep doctor`"  # the remedy for what git itself says; the doctor says another
NO_OPTIONS = "does not support push options"
OUTDATED = ("stale info", "fetch first", "non-fast-forward", "failed to update ref", "cannot lock ref")
OPTIONS_FAILED = re.compile(r"remote: +(Error encountered with push options.*)")  # GitLab accepts the push all the same
REASONS = ("fatal:", "error:", "remote: error", "remote: GitLab:", "! ")  # how lines begin that say why git failed

HELPER = '!f() {{ test "$1" != get || printf "username=%s\\npassword=%s\\n" upkeep "${}"; }}; f'
"""A credential helper that reads a token from the environment: no command line, address or file ever holds it."""


def git(*arguments: str, text: str | None = None) -> str:
    """Run git, with `text` as its input, and return what it prints; an UpkeepError says why it failed."""
    done = run(["git", *arguments], text=text)
    if done.returncode:
        raise UpkeepError(f"`git {arguments[0]}` failed: {find_reason(done.stderr)}", remedy=ASK_DOCTOR)
    return done.stdout.rstrip("\n")


def tip(branch: str) -> str | None:
    """Return the commit that the remote's branch is at, or None if there is no such branch."""
    return git("ls-remote", "origin", f"refs/heads/{branch}").partition("\t")[0] or None


def fetch(branch: str, *, history: bool = False) -> str:
    """Fetch a branch of the remote, with its whole history if asked, and return its newest commit."""
    shallow = history and git("rev-parse", "--is-shallow-repository") == "true"
    try:
        git("fetch", "--quiet", "--no-tags", *["--unshallow"] * shallow, "origin", f"refs/heads/{branch}")
    except UpkeepError as error:
        if tip(branch) is not None:
            raise
        remedy = "name another one, or push it first; `git ls-remote --heads origin` lists them"
        raise UpkeepError(f"the remote has no branch {branch}", remedy=remedy) from error
    return git("rev-parse", "FETCH_HEAD")


def read_committed(commit: str, file: Path) -> str:
    """Return a file as it is in a commit; an UpkeepError if it is not there, or larger than :data:`MOST_BYTES`."""
    where = f"{commit}:./{file.as_posix()}"
    if int(git("cat-file", "-s", where)) > MOST_BYTES:
        what = f"{file} of the commit {commit} is larger than {MOST_BYTES:,} bytes"
        raise UpkeepError(what, remedy="replace it by the file that upkeep writes", file=file)
    return git("show", where)


def changed(paths: Iterable[str]) -> list[str]:
    """List the files under `paths` that differ from the newest commit or are not in it, without ignored ones."""
    entries = git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *paths).split("\0")
    return [entry[3:] for entry in entries if entry]


def only_ours(*commits: str) -> bool:
    """Return whether :func:`commit` made all commits that ``git log`` lists for these arguments."""
    return set(git("log", "--format=%ce", *commits).splitlines()) <= {EMAIL}


def commit(message: str, paths: Sequence[str]) -> None:
    """Commit these files as upkeep, without running hooks."""
    git("add", "--all", "--", *paths)
    author = ("-c", f"user.name={AUTHOR}", "-c", f"user.email={EMAIL}", "-c", "commit.gpgSign=false")
    git(*author, "commit", "--quiet", "--no-verify", "--message", message)


def push(branch: str, *, options: Sequence[str] = (), replacing: str | None = None, rehearse: bool = False) -> str:
    """Push the newest commit to a branch of the remote and return what the remote says.

    `options` are GitLab's; a remote without any, such as a bare repository on a share, gets the branch only.
    `replacing` is the commit that a branch to be overwritten must be at, empty if it must not exist; None does not
    overwrite. With `rehearse` the remote is only asked. Raises an UpkeepError if it refuses, or the branch has changed.
    """
    lease = [] if replacing is None else [f"--force-with-lease=refs/heads/{branch}:{replacing}"]
    what, how = f"HEAD:refs/heads/{branch}", [*["--dry-run"] * rehearse, *lease]
    done = _push_as(what, TOKEN, *how, *(f"--push-option={option}" for option in options))
    if done.returncode and NO_OPTIONS in done.stderr:
        done = _push_as(what, TOKEN, *how)
    if done.returncode:
        raise _explain_refusal(branch, done.stderr)
    if failed := OPTIONS_FAILED.search(done.stderr):
        raise UpkeepError(
            f"{branch} was pushed, but GitLab did not do what was asked with it: {find_reason(failed[1])}",
            remedy="open the merge request by hand, or mend what GitLab names and delete the branch",
        )
    return mask_values(done.stderr, os.environ.get(TOKEN)).strip()


def push_tag(tag: str, made: str, *, rehearse: bool = False) -> bool:
    """Push a tag object under this name, and return whether the remote had none of this name.

    With `rehearse` the remote is only asked. Raises an UpkeepError if it refuses.
    """
    token = RELEASE_TOKEN if os.environ.get(RELEASE_TOKEN) else TOKEN
    done = _push_as(f"{made}:refs/tags/{tag}", token, *["--dry-run"] * rehearse)
    if not done.returncode:
        return True
    if git("ls-remote", "origin", f"refs/tags/{tag}"):
        return False
    remedy = (
        f"protect the tags fleet*, and set {RELEASE_TOKEN} to a project access token with the role Maintainer and the "
        "scope write_repository, see docs/gitlab.md, step 4; on a laptop, check that you may push tags there"
    )
    raise UpkeepError(f"the tag {tag} cannot be pushed: {find_reason(done.stderr)}", remedy=remedy)


def _push_as(what: str, token: str, *options: str) -> subprocess.CompletedProcess[str]:
    # The empty helper drops all others, which would offer the job's own token, which may not push.
    helpers = ["credential.helper=", f"credential.helper={HELPER.format(token)}"] if os.environ.get(token) else []
    settings = [word for helper in helpers for word in ("-c", helper)]
    return run(["git", *settings, "push", "--no-verify", *options, _address(token), what])


def run(
    command: Sequence[str],
    environment: Environment = os.environ,
    seconds: float | None = None,
    *,
    text: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program, without prompts and in English; an UpkeepError is raised if it is missing or takes too long."""
    variables = {"GIT_TERMINAL_PROMPT": "0", **environment, "LC_ALL": "C"}
    if authority := environment.get("CI_SERVER_TLS_CA_FILE"):
        variables.setdefault("GIT_SSL_CAINFO", authority)
    texts: Any = {"encoding": "utf-8", "errors": "surrogateescape"}  # names and contents of files may be any bytes
    try:
        return subprocess.run(
            command, env=variables, input=text, capture_output=True, check=False, timeout=seconds, **texts
        )
    except FileNotFoundError as error:
        raise UpkeepError(f"{command[0]} was not found", remedy=f"install {command[0]}") from error
    except subprocess.TimeoutExpired as error:
        remedy = "check the address, firewall and proxy"
        raise UpkeepError(f"{command[0]} had no answer in {seconds} s", remedy=remedy) from error


def find_reason(printed: str) -> str:
    """Return the line of what a command printed that says why it failed, without credentials."""
    text = mask_values(printed, os.environ.get(TOKEN), os.environ.get(RELEASE_TOKEN))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith(REASONS)), lines[-1] if lines else "it said nothing")


def _address(token: str) -> str:
    """Return where to push to, with upkeep's name in place of the job's token."""
    # GitLab's runner writes that into the address or, since 18.6, has git rewrite each address that names nobody.
    address = git("remote", "get-url", "--push", "origin")
    parts = urlsplit(address)
    if not os.environ.get(token) or parts.scheme not in ("http", "https"):
        return address
    return urlunsplit(parts._replace(netloc=f"{AUTHOR}@{parts.netloc.rpartition('@')[2]}"))


def _explain_refusal(branch: str, printed: str) -> UpkeepError:
    if any(sign in printed for sign in OUTDATED):
        what = f"the branch {branch} was changed by someone else meanwhile"
        return UpkeepError(what, remedy="nothing, if its newest pipeline runs; else run this job again")
    remedy = f"set {TOKEN} to a project access token with the scope write_repository, see docs/gitlab.md"
    if os.environ.get(TOKEN):
        remedy = f"give the token in {TOKEN} the scope write_repository and a role that may push to {branch}"
    return UpkeepError(f"the branch {branch} cannot be pushed: {find_reason(printed)}", remedy=remedy)
