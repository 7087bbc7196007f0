"""The two trust zones, merge requests and protected pipelines; docs/decisions/0012 says what keeps them apart."""

from upkeep.releases import git

Environment = git.Environment
TOKEN = git.TOKEN
TARGET = "CI_MERGE_REQUEST_TARGET_BRANCH_NAME"
# Readable by whoever may push a branch, so it may write notes and push nothing.
NOTE_TOKEN = "UPKEEP_NOTE_TOKEN"  # noqa: S105  # the variable's name, not its value
ENVIRONMENT = "merge-requests"  # GitLab's environment of their jobs, in which a variable can have another value
REMOTE = "merge_requests"  # the DVC remote that these jobs and developers write to; protected pipelines never read it

# What only protected pipelines may see; merge requests may have values of their own for some of them.
SHARED = frozenset(
    {
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    }
)
PROTECTED = SHARED | {
    *(TOKEN, git.RELEASE_TOKEN, "UPKEEP_ALERT_WEBHOOK", "UPKEEP_WEBHOOK_SECRET", "UPKEEP_TOKENS"),
    *("UPKEEP_REGISTRY_USER", "UPKEEP_REGISTRY_PASSWORD"),
    *("DEPLOY_HOST", "DEPLOY_PORT", "DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS", "DEPLOY_FOLDER"),
}

ONE_REMOTE = (
    "one DVC remote for all: a merge request can plant raw data, and each merge trains all anew; "
    f"docs/gitlab.md, step 2, adds {REMOTE}"
)


def is_merge_request(environment: Environment) -> bool:
    """Tell whether this is a job of a merge request."""
    return bool(environment.get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"))


def is_protected(environment: Environment) -> bool:
    """Tell whether this is a job of a protected pipeline: in CI, and not of a merge request."""
    return bool(environment.get("CI")) and not is_merge_request(environment)
