"""Two zones of trust: merge requests run what anybody with a branch wrote, and protected pipelines believe none of it.

docs/decisions/0012-two-trust-zones.md says what keeps them apart.
"""

from upkeep.releases import git

Environment = git.Environment
TOKEN = git.TOKEN
TARGET = "CI_MERGE_REQUEST_TARGET_BRANCH_NAME"
NOTE_TOKEN = "UPKEEP_NOTE_TOKEN"  # noqa: S105  # the variable's name, not its value
"""Of jobs of merge requests, where anybody with a branch can read it: it writes notes, and pushes nothing."""

ENVIRONMENT = "merge-requests"  # GitLab's, of their jobs, so that a variable can have another value there
REMOTE = "merge_requests"  # DVC's, which these jobs, and developers, write to; nothing protected ever reads it

PROTECTED = frozenset(
    {
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", TOKEN, git.RELEASE_TOKEN, "UPKEEP_ALERT_WEBHOOK"),
        *("UPKEEP_REGISTRY_USER", "UPKEEP_REGISTRY_PASSWORD", "UPKEEP_TOKENS", "UPKEEP_WEBHOOK_SECRET"),
        *("DEPLOY_HOST", "DEPLOY_PORT", "DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS", "DEPLOY_FOLDER"),
        *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    }
)
"""Variables that only protected pipelines may see; some have another value in :data:`ENVIRONMENT`."""

SHARED = frozenset(name for name in PROTECTED if name.startswith(("AWS_", "MLFLOW_")))
"""Those of them that may have one."""

ONE_REMOTE = (
    "one DVC remote for all: a merge request can plant raw data, and each merge trains all anew; "
    f"docs/gitlab.md, step 2, adds {REMOTE}"
)


def is_merge_request(environment: Environment) -> bool:
    """Tell whether this is a job of a merge request."""
    return bool(environment.get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"))


def is_protected(environment: Environment) -> bool:
    """Tell whether this is a job of a pipeline that trains, ships or releases: no merge request's, and on no laptop."""
    return bool(environment.get("CI")) and not is_merge_request(environment)
