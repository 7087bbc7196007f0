#!/usr/bin/env bash
# status.sh [IMAGE@sha256:DIGEST]: what runs here since when, and what a rollback can return to. Exits 1 if the service
# does not answer, or if it is not that image.
# shellcheck source=deploy/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

describe() { # container
  engine inspect -f '{{.State.Status}}, {{index .Config.Labels "upkeep.image"}}' "$1" 2>/dev/null || echo gone
}

main() {
  check_server
  local current name answer
  current=$(live)
  [ -n "$current" ] || die "nothing is live" "a deployed release" "update.sh IMAGE@sha256:DIGEST"
  say "server   $(uname -n), $STATE, ${ENGINE##*/}"
  say "live     $current, $(describe "$current")"
  say "since    $(awk -F'\t' -v of="$current" '$3 == of { since = $1 ", by " $2 } END { print since }' "$HISTORY")"
  for name in $(releases | sed '$d' | tac); do say "kept     $name, $(describe "$name")"; done
  flock -n "$STATE/lock" true || say "busy     $(cat "$STATE/lock")"
  answer=$(curl -fsSk -m 5 "$(proxy_url)/health") || die "the live release does not answer" \
    "200 from $(proxy_url)/health" "rollback.sh; to see why: $ENGINE logs $current; $ENGINE logs $PROXY"
  say "answers  $answer"
  [ -z "${1:-}" ] || [ "$(label "$current" image)" = "$1" ] ||
    die "another image is live: $(label "$current" image)" "$1" "see who deployed since; then deploy that one again"
}

main "$@"
