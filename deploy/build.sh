#!/usr/bin/env bash
# build.sh TAG: build the service's image from this checkout, whose models must be there (dvc repro, or dvc pull).
#   PIP_CONFIG_FILE  pip's configuration, if packages come from an index of your own (/etc/pip.conf if there)
#   SSL_CERT_FILE    certificate authorities, if that index has a certificate of your own
#   UPKEEP_EXTRAS    s3, if the prediction log goes to an address such as s3://bucket/log
#   UPKEEP_BASE      the Python image to build on, by digest or from your own registry
# Both files are secrets of the build: nothing of them stays in the image.
set -euo pipefail
cd "$(dirname "$0")/.."

refuse() { # what, expected, remedy
  printf 'error: %s\n  expected: %s\n  remedy:   %s\n' "$1" "$2" "$3" >&2
  exit 1
}

# As the service names them: plant=VERSION, with a comma between plants.
model_versions() {
  local folder versions=
  for folder in models/plants/*/; do
    versions+=,$(basename "$folder")=$(sha256sum <"${folder}model.json" | head -c 12)
  done
  echo "${versions#,}"
}

# As DVC hashes a folder: the MD5 of the JSON list of its files, sorted by path.
folder_hash() { # folder
  local file entries=
  while IFS= read -r file; do
    entries+=", {\"md5\": \"$(md5sum <"$1/$file" | head -c 32)\", \"relpath\": \"$file\"}"
  done < <(find "$1" -type f -printf '%P\n' | LC_ALL=C sort)
  printf '[%s]' "${entries#, }" | md5sum | head -c 32
  echo .dir
}

locked_hash() { # folder, an output of a stage
  awk -v folder="$1" '/^ *(deps|outs):/ { part = $1 } part == "outs:" && $NF == folder { found = 1 }
    found && $1 == "md5:" { print $2; exit }' dvc.lock
}

# List what the image contains but the commit does not; compiled modules are not copied into it.
changes() {
  git status --porcelain --ignored --untracked-files=all -- Dockerfile .dockerignore "$(lock)" \
    deploy/slim.sh dvc.lock data/references/dictionary.yaml src/upkeep ':(exclude,glob)**/__pycache__/**'
  local folder
  for folder in models/plants models/golden; do
    [ "$(folder_hash "$folder")" = "$(locked_hash "$folder")" ] || echo " M $folder, which is not that of dvc.lock"
  done
}

# Which packages go into the image.
lock() {
  echo "requirements-serving${UPKEEP_EXTRAS:+-$UPKEEP_EXTRAS}.lock"
}

commit() {
  local revision differing
  revision=$(git rev-parse HEAD) ||
    refuse "the commit is not known" "a git checkout" "clone the repository, rather than unpack an archive of it"
  differing=$(changes)
  if [ -n "$differing" ]; then
    revision+=-dirty
    printf 'warning: the image is marked %s, for these are not of that commit:\n%s\n' "$revision" "$differing" >&2
  fi
  echo "$revision"
}

main() {
  local tag=${1:-} engine pip=${PIP_CONFIG_FILE:-/etc/pip.conf} options=()
  [[ $tag =~ ^[A-Za-z0-9][A-Za-z0-9._:/-]*$ ]] ||
    refuse "the tag is '$tag'" "letters, digits and . _ - : /" "give one, such as registry.example.com/team/upkeep:latest"
  ls models/plants/*/model.json models/golden/*.json >/dev/null ||
    refuse "models or golden requests are missing" "a model and golden requests per plant" "dvc repro, or dvc pull"
  [ -f "$(lock)" ] || refuse "UPKEEP_EXTRAS is '$UPKEEP_EXTRAS', but there is no $(lock)" "s3, or not set" "correct it"
  engine=${UPKEEP_ENGINE:-$(command -v docker || command -v podman)} ||
    refuse "neither docker nor podman was found" "one of them on PATH" "install one"
  if [ "${engine##*/}" = podman ]; then options+=(--format docker); fi # or HEALTHCHECK is dropped
  if [ -f "$pip" ]; then options+=(--secret "id=pip.conf,src=$pip"); fi
  if [ -n "${SSL_CERT_FILE:-}" ]; then options+=(--secret "id=ca.crt,src=$SSL_CERT_FILE"); fi
  if [ -n "${UPKEEP_BASE:-}" ]; then options+=(--build-arg "BASE=$UPKEEP_BASE"); fi
  local revision
  revision=$(commit)
  # The host's network, because the host can reach the package index.
  DOCKER_BUILDKIT=1 "$engine" build --network host "${options[@]}" --tag "$tag" --build-arg "COMMIT=$revision" \
    --build-arg "LOCK=$(lock)" --build-arg "DVC_LOCK=$(sha256sum <dvc.lock | head -c 64)" --build-arg "MODELS=$(model_versions)" "${@:2}" .
}

main "$@"
