#!/usr/bin/env bash
# push.sh TAG: push an image and write image.env, which names it by the digest that the registry gave it.
#   UPKEEP_REGISTRY_USER, UPKEEP_REGISTRY_PASSWORD  the registry's login; unset: GitLab's own for its own
#   registry, else that of this machine
set -euo pipefail

refuse() { # what, expected, remedy
  printf 'error: %s\n  expected: %s\n  remedy:   %s\n' "$1" "$2" "$3" >&2
  exit 1
}

log_in() { # registry
  local user=${UPKEEP_REGISTRY_USER:-} password=${UPKEEP_REGISTRY_PASSWORD:-}
  if [ -z "$user" ] && [ "$1" = "${CI_REGISTRY:-}" ]; then user=$CI_REGISTRY_USER password=$CI_REGISTRY_PASSWORD; fi
  if [ -z "$user" ]; then return; fi
  # A login for this run only: the machine's next job may belong to another project.
  DOCKER_CONFIG=$(mktemp -d)
  REGISTRY_AUTH_FILE=$DOCKER_CONFIG/config.json
  export DOCKER_CONFIG REGISTRY_AUTH_FILE
  trap 'rm -rf "$DOCKER_CONFIG"' EXIT
  printf %s "$password" |
    "$engine" login --username "$user" --password-stdin "$1" >/dev/null 2>&1 ||
    refuse "$1 refuses the login of $user" "a user who may push" \
      "check UPKEEP_REGISTRY_USER and UPKEEP_REGISTRY_PASSWORD; upkeep doctor tells more"
}

main() {
  tag=${1:-}
  [[ $tag =~ ^[A-Za-z0-9][A-Za-z0-9._:/-]*/[a-z0-9._/-]+:[A-Za-z0-9_][A-Za-z0-9._-]*$ ]] || refuse "the tag is '$tag'" "REGISTRY/PATH:TAG" "make push IMAGE=REGISTRY/PATH:TAG; in CI, set UPKEEP_IMAGE to REGISTRY/PATH"
  engine=${UPKEEP_ENGINE:-$(command -v docker || command -v podman)} ||
    refuse "neither docker nor podman was found" "one of them on PATH" "install one"
  log_in "${tag%%/*}"
  "$engine" push "$tag" || refuse "$tag could not be pushed" "a registry that takes it" "see the engine's message above"
  local digest
  digest=$("$engine" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$tag" | grep "^${tag%:*}@")
  echo "IMAGE_DIGEST=$digest" | tee image.env
}

main "$@"
