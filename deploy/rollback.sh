#!/usr/bin/env bash
# rollback.sh: make the release before the live one live again, with the settings that it had.
# shellcheck source=deploy/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

main() {
  check_server
  take_lock rollback
  recover
  trap tidy EXIT
  local before target image
  before=$(live)
  target=$(releases | sed '$d' | tail -n 1)
  [ -n "$target" ] || die "no release before the live one (${before:-nothing}) is kept" "an earlier release" \
    "deploy the image you want: update.sh IMAGE@sha256:DIGEST"
  image=$(awk -F'\t' -v of="$target" '$3 == of { image = $4 } END { print image }' "$HISTORY")
  make_live rollback "$target" "$image"
}

main "$@"
