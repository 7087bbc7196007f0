#!/usr/bin/env bash
# update.sh IMAGE@sha256:DIGEST: make this image the live release, or change nothing and say why.
# shellcheck source=deploy/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Settings are part of a release: the same image with other settings is another release.
container_for() { # image
  local digest=${1##*:} settings
  settings=$(find "$STATE" \( -name upkeep.env -o -name server.conf -o -name tls.pem \) -exec sha256sum {} + |
    sort | sha256sum)
  echo "$NAME-${digest:0:12}-${settings:0:10}"
}

prepare_folder() {
  mkdir -p "$STATE/proxy"
  # The proxy runs as this folder's owner, which must not be root.
  if [ "$(id -u)" = 0 ]; then chown 65534:65534 "$STATE/proxy"; fi
}

clean_up() {
  tidy
  remove_images "${image%@*}"
}

main() {
  image=${1:-}
  [[ $image =~ ^[A-Za-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}$ ]] || die "the image is '$image'" \
    "IMAGE@sha256:DIGEST, so that what runs is what was tested" "pass the digest that the push reported"
  check_server
  take_lock "update to $image"
  prepare_folder
  recover
  trap clean_up EXIT
  local before candidate
  before=$(live)
  candidate=$(container_for "$image")
  if [ "$candidate" = "$before" ] && [ "$(proxied)" = "$before" ]; then
    say "$image is live already, with the present settings; nothing to do"
    return
  fi
  say "pull $image"
  # A rollback's image is usually here already, and a digest needs no check: the registry may be down.
  engine image inspect "$image" >/dev/null 2>&1 || engine pull -q "$image" >/dev/null || die "$image could not be pulled; live: ${before:-nothing}" \
    "an image in a registry that this server may read" "see the message above; $ENGINE login, once, if it asks for one"
  make_live update "$candidate" "$image"
}

main "$@"
