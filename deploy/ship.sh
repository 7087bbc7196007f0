#!/usr/bin/env bash
# ship.sh update IMAGE@sha256:DIGEST | rollback | status [IMAGE@sha256:DIGEST] | check
# Copy the scripts to the server and run one there, in one SSH session.
#   DEPLOY_HOST         [user@]host of the server            DEPLOY_PORT    its SSH port (22)
#   DEPLOY_KNOWN_HOSTS  file with its pinned host key        DEPLOY_FOLDER  state folder below the user's home (upkeep)
#   DEPLOY_KEY          file with the private key
set -euo pipefail

refuse() { # what, expected, remedy
  printf 'error: %s\n  expected: %s\n  remedy:   %s\n' "$1" "$2" "$3" >&2
  exit 2
}

check() {
  case ${1:-} in update | rollback | status | check) ;; *)
    refuse "the command is '${1:-}'" "update IMAGE@sha256:DIGEST, rollback, status or check" "see the head of $0" ;;
  esac
  for name in DEPLOY_HOST DEPLOY_KNOWN_HOSTS DEPLOY_KEY; do
    [ -n "${!name:-}" ] ||
      refuse "$name is not set" "the variables at the head of $0" "set it in the CI settings or the shell"
  done
  # The folder's last part names containers; no part may be .. or look like an option.
  [[ ${DEPLOY_FOLDER:-upkeep} =~ ^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$ ]] ||
    refuse "DEPLOY_FOLDER is '$DEPLOY_FOLDER'" "a folder below the user's home, of letters, digits and . _ - /" "correct it"
  for name in DEPLOY_KNOWN_HOSTS DEPLOY_KEY; do
    [ -f "${!name}" ] || refuse "$name is no file" "a variable of type file" "set its type to file in the CI settings"
  done
}

main() {
  check "$@"
  local here folder=${DEPLOY_FOLDER:-upkeep} arguments
  here=$(cd "$(dirname "$0")" && pwd)
  private=$(mktemp -d)
  trap 'rm -rf "$private"' EXIT
  # CI writes file variables readable for all and may drop the last line's end; ssh accepts neither.
  (umask 077 && { cat "$DEPLOY_KEY" && echo; } >"$private/key")
  cp "$DEPLOY_KNOWN_HOSTS" "$private/known_hosts" # ssh would split a path at spaces
  printf -v arguments '%q ' "${@:2}"
  # Renamed into place: another session may be running the same scripts at this moment.
  tar -C "$here" -cf - lib.sh update.sh rollback.sh status.sh check.sh haproxy.cfg |
    ssh -F /dev/null -p "${DEPLOY_PORT:-22}" -i "$private/key" -o IdentitiesOnly=yes -o BatchMode=yes \
      -o StrictHostKeyChecking=yes -o UserKnownHostsFile="$private/known_hosts" -o GlobalKnownHostsFile=/dev/null \
      -o ConnectTimeout=20 -o ServerAliveInterval=15 -- "$DEPLOY_HOST" \
      "cd && mkdir -p $folder/bin && new=\$(mktemp -d $folder/bin/new.XXXXXX) && tar -C \$new -xf - &&
        mv -f \$new/* $folder/bin/ && rmdir \$new && exec ~/$folder/bin/$1.sh $arguments"
}

main "$@"
