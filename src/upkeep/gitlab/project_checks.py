"""The doctor's checks of the GitLab project: variables, trust zones, pushes, releases and tokens."""

import re
from datetime import UTC, date, datetime
from pathlib import Path

from upkeep.core.errors import UpkeepError
from upkeep.gitlab import zones
from upkeep.gitlab.api import find_open_tag, open_project, read_token
from upkeep.gitlab.readiness import SECONDS, NotReadyError
from upkeep.gitlab.remotes import remotes_apart
from upkeep.gitlab.setup import TOKENS
from upkeep.gitlab.zones import NOTE_TOKEN, TOKEN, Environment
from upkeep.releases import git
from upkeep.releases.history import ARTIFACT

TOKEN_DAYS = 14  # a token that ends sooner is to be renewed
IMAGES = ("UPKEEP_CI_IMAGE", "UPKEEP_TEST_IMAGE", "UPKEEP_BASE")  # what jobs run in, or the service's is built on
FILES = ("DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS", "PIP_CONFIG_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")


def check_variables(environment: Environment) -> str:
    """Find variables of the wrong type, not expanded, or left over from a single run."""
    if texts := [name for name in FILES if environment.get(name) and not Path(environment[name]).exists()]:
        raise UpkeepError(f"no file: {', '.join(texts)}", remedy="set the variable's type to File in the CI settings")
    if "$" in environment.get("UPKEEP_TEST_IMAGE", ""):
        raise UpkeepError("UPKEEP_TEST_IMAGE is not expanded", remedy="tick *Expand variable reference* at it")
    if today := environment.get("UPKEEP_TODAY"):
        raise UpkeepError(f"UPKEEP_TODAY is set: schedules take {today} for today", remedy="remove it after use")
    return "what must be a file is one, and what refers to a variable is expanded"


def check_zones(environment: Environment) -> str:
    """Find what lets merge requests reach protected pipelines, as far as a job can see it."""
    if zones.is_merge_request(environment):
        return _check_merge_request(environment)
    # The project's own registry takes pushes from every job; a digest pins what was there before.
    pushable = re.compile(rf"{re.escape(environment.get('CI_REGISTRY_IMAGE') or 'none')}([/:](?!.*@sha256:)|\Z)")
    if weak := [name for name in IMAGES if pushable.match(environment.get(name, ""))]:
        remedy = "name it by digest, IMAGE@sha256:..., or keep it in another project's registry"
        raise UpkeepError(f"jobs of merge requests can push to where {', '.join(weak)} is", remedy=remedy)
    if environment.get("CI_COMMIT_REF_PROTECTED") == "false":
        what = "this pipeline's branch or tag is not protected, so it sees no protected variable"
        raise UpkeepError(what, remedy="protect the branch, or the tag; docs/gitlab.md, step 1")
    if not remotes_apart():
        raise NotReadyError(zones.ONE_REMOTE)
    if environment.get("GITLAB_CI") and not environment.get("UPKEEP_PROTECTED_RUNNER_TAG"):
        raise NotReadyError("one runner for all: who may push a branch can change what protected pipelines run")
    return "merge requests have a remote of their own, and no say in what protected pipelines run"


def _check_merge_request(environment: Environment) -> str:
    if shown := sorted(name for name in zones.PROTECTED - zones.SHARED if environment.get(name)):
        remedy = "tick *Protect variable* at each; docs/gitlab.md, step 5, says who needs it"
        if environment.get("CI_COMMIT_REF_PROTECTED") == "true":  # between two protected branches, from GitLab 18 on
            remedy = "untick *Allow merge request pipelines to access protected variables*; docs/gitlab.md, step 1"
        raise UpkeepError(f"every merge request's job can read {', '.join(shown)}", remedy=remedy)
    return "this merge request's job sees no variable that is to be protected"


def read_git_remote(environment: Environment) -> str:
    """List the branches of `origin`."""
    variables = {**environment, "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
    done = git.run(["git", "ls-remote", "--heads", "origin"], variables, SECONDS)
    if done.returncode:
        remedy = "check the address that `git remote -v` shows, that it can be reached, and that you may read it"
        raise UpkeepError(f"origin cannot be read: {git.find_reason(done.stderr)}", remedy=remedy)
    return f"origin answers; branches: {len(done.stdout.splitlines())}"


def push_to_git_remote(environment: Environment) -> str:
    """Rehearse a push; the remote's rules for protected branches are not applied to it."""
    if environment.get("GITLAB_CI") and not environment.get(TOKEN):
        raise NotReadyError(f"{TOKEN} is not set: jobs push neither fresh locks nor retrained models")
    git.push("upkeep-doctor", rehearse=True)
    return "a push would be taken"


def push_tags(environment: Environment) -> str:
    """Rehearse the push of a release's tag, and find tags of releases that anybody who may push can move."""
    if zones.is_merge_request(environment):
        raise NotReadyError("merge requests make no releases")
    if environment.get("GITLAB_CI") and not (environment.get(git.RELEASE_TOKEN) or environment.get(TOKEN)):
        raise NotReadyError(f"{git.RELEASE_TOKEN} is not set: nothing can be deployed, since nothing would note it")
    git.push_tag(f"{ARTIFACT}#rehearsal", "HEAD", rehearse=True)
    if not (environment.get(TOKEN) and environment.get("CI_PROJECT_ID")):
        return f"a tag would be taken; without {TOKEN}, nobody can say whether {ARTIFACT}* are protected"
    if tag := find_open_tag(open_project(environment), ARTIFACT):
        remedy = f"protect the tags {ARTIFACT}*, for maintainers to create; docs/gitlab.md, step 1"
        raise UpkeepError(f"{tag} is not protected: anybody who may push can say what a rollback ships", remedy=remedy)
    return "a tag would be taken, and those there are are protected"


def check_tokens(environment: Environment) -> str:
    """Ask GitLab which scopes each project token has, and until when."""
    told = []
    for name, wanted in TOKENS.values():
        if not environment.get(name):
            continue
        token, needed, remedy = read_token(environment, name), wanted["scopes"][0], "see docs/gitlab.md, step 4"
        if needed not in token.scopes:
            raise UpkeepError(f"{name} has no scope {needed}, only {', '.join(token.scopes)}", remedy=remedy)
        if name == NOTE_TOKEN and len(token.scopes) > 1:
            what = f"{name}, which merge requests can read, has more scopes: {', '.join(token.scopes)}"
            raise UpkeepError(what, remedy=remedy)
        ends = token.expires_at
        if ends and (date.fromisoformat(ends) - datetime.now(UTC).date()).days < TOKEN_DAYS:
            raise UpkeepError(f"{name} ends on {ends}", remedy=f"*Rotate* it, or run `upkeep gitlab-setup`; {remedy}")
        told.append(f"{name} has the scope {needed}{f' until {ends}' if ends else ''}")
    if not told:
        raise NotReadyError("no token is set: jobs write no notes and issues and push nothing", step=4)
    return "; ".join(told)
