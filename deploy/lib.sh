# shellcheck shell=bash
# Shared by the scripts that run on the server; deploy/ship.sh copies them to bin/ in the server's state folder.
set -euo pipefail

BIN=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
STATE=$(dirname "$BIN")
NAME=$(basename "$STATE") # prefix of containers and volume: each state folder is a separate installation
PROXY=$NAME-proxy
CONFIG=$STATE/proxy/haproxy.cfg
HISTORY=$STATE/releases.tsv

# The operator's settings, see docs/operations.md.
# shellcheck source=/dev/null
if [ -f "$STATE/server.conf" ]; then . "$STATE/server.conf"; fi
ENGINE=${UPKEEP_ENGINE:-$(command -v docker || command -v podman || true)}
PROXY_IMAGE=${UPKEEP_PROXY_IMAGE:-docker.io/library/haproxy:3.2}
PROXY_PORT=${UPKEEP_PROXY_PORT:-8080}
FIRST_PORT=${UPKEEP_FIRST_PORT:-18000} # ports of releases on the loopback interface: this one and the next 19
MEMORY=${UPKEEP_MEMORY:-2g}
HEALTH_SECONDS=${UPKEEP_HEALTH_SECONDS:-60}
DRAIN_SECONDS=${UPKEEP_DRAIN_SECONDS:-30}
LOCK_SECONDS=${UPKEEP_LOCK_SECONDS:-120}
KEEP=3

say() { printf '%s\n' "$*"; }

now() { date -u +%Y-%m-%dT%H:%M:%SZ; }

die() { # what, expected, remedy
  printf 'error: %s [host=%s, folder=%s]\n  expected: %s\n  remedy:   %s\n' "$1" "$(uname -n)" "$STATE" "$2" "$3" >&2
  exit 1
}

# Descriptor 9 is the lock: processes that the engine leaves running must not inherit it.
engine() { "$ENGINE" "$@" 9>&-; }

check_server() {
  [ "$(basename "$BIN")" = bin ] ||
    die "the scripts lie in $BIN" "the bin/ of a state folder" "run deploy/ship.sh, which copies them to the server"
  [ -n "$ENGINE" ] || die "neither docker nor podman was found" "one of them on PATH" "install one"
  local program
  for program in curl flock tar; do
    command -v "$program" >/dev/null || die "$program was not found" "$program on PATH" "install it"
  done
  engine version >/dev/null 2>&1 ||
    die "$ENGINE does not answer" "a running engine that $(id -un) may use" "see: $ENGINE version"
}

take_lock() { # what for
  exec 9>>"$STATE/lock"
  flock -w "$LOCK_SECONDS" 9 || die "still busy after $LOCK_SECONDS s: $(cat "$STATE/lock")" \
    "one deployment at a time" "wait until that one has ended, then run this again"
  say "$1 by $(id -un)${SSH_CLIENT:+ from ${SSH_CLIENT%% *}}, process $$, since $(now)" >"$STATE/lock"
}

# The container that the proxy's configuration names, which defines what is live.
live() { if [ -f "$CONFIG" ]; then sed -n 's/^ *server \([^ ]*\) .*/\1/p' "$CONFIG"; fi; }

# Releases in the order in which rollbacks go back through them, the live one last.
releases() {
  if [ -f "$HISTORY" ]; then
    awk -F'\t' '
      $2 == "update" { for (i = m = 0; i < n; i++) if (kept[i] != $3) kept[m++] = kept[i]; n = m; kept[n++] = $3 }
      $2 == "rollback" { while (n && kept[n - 1] != $3) n--; if (!n) kept[n++] = $3 }
      END { for (i = 0; i < n; i++) print kept[i] }' "$HISTORY" | tail -n "$KEEP"
  fi
}

record() { # update|rollback, container
  printf '%s\t%s\t%s\t%s\n' "$(now)" "$1" "$2" "$(label "$2" image)" >>"$HISTORY"
}

label() { engine inspect -f "{{index .Config.Labels \"upkeep.$2\"}}" "$1"; } # container, label

free_port() {
  local port taken
  taken=$(for name in $(engine ps -aq --filter label=upkeep.port); do label "$name" port; done)
  for ((port = FIRST_PORT; port < FIRST_PORT + 20; port++)); do
    if ! grep -qx "$port" <<<"$taken" && ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port" && return
    fi
  done
  die "ports $FIRST_PORT to $((port - 1)) are taken" "a free one" "set UPKEEP_FIRST_PORT in $STATE/server.conf"
}

launch() { # container, image: beside whatever runs
  # A kept release still has its container, which cannot start if its port was taken in between.
  engine start "$1" >/dev/null 2>&1 && return
  engine rm -f "$1" >/dev/null 2>&1 || true
  local port settings=()
  port=$(free_port)
  if [ -f "$STATE/upkeep.env" ]; then settings=(--env-file "$STATE/upkeep.env"); fi
  engine run -d --name "$1" --label upkeep.name="$NAME" --label upkeep.port="$port" --label upkeep.image="$2" \
    --publish "127.0.0.1:$port:8000" --volume "$NAME-data:/var/lib/upkeep" "${settings[@]}" \
    --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --memory "$MEMORY" \
    --restart unless-stopped --stop-timeout 30 --log-driver json-file --log-opt max-size=50m "$2" >/dev/null ||
    die "$1 could not be started; live: $(live)" "a container beside the live one" "see the engine's message above"
}

healthy() { curl -fs -m 5 -o /dev/null "http://127.0.0.1:$(label "$1" port)/health"; } # container

wait_healthy() { # container; fails at once if it crashes
  local deadline=$((SECONDS + HEALTH_SECONDS))
  until healthy "$1"; do
    if ((SECONDS >= deadline)); then return 1; fi
    [ "$(engine inspect -f '{{.RestartCount}} {{.State.Running}}' "$1")" = "0 true" ] || return 1
    sleep 0.2
  done
}

approve() { # container: check that it is healthy and gives the golden answers stored at training
  if ! wait_healthy "$1"; then
    engine logs --tail 20 "$1" >&2 || true
    die "$1 stopped, or was not healthy within $HEALTH_SECONDS s (its last words stand above); live: $(live)" \
      "200 from /health" "mend the image and deploy it again"
  fi
  engine exec "$1" python -m upkeep smoke >&2 ||
    die "$1 gave other answers than those stored at training; live: $(live)" \
      "the golden answers" "build the image from code and models of one commit, and deploy it again"
}

proxy_url() {
  local here=://127.0.0.1
  sed -n -E -e "s|^ *bind (:[0-9]+) ssl.*|https$here\1|p" -e "s|^ *bind (:[0-9]+)$|http$here\1|p" "$CONFIG"
}

# The release that answers through the proxy. Insecure, because certificates are for the server's name, not 127.0.0.1.
proxied() {
  local headers
  headers=$(curl -fsk -m 5 -D - -o /dev/null "$(proxy_url)/health") || return 0
  sed -n 's/^x-upkeep-release: \([^[:space:]]*\).*/\1/Ip' <<<"$headers"
}

haproxy() { # arguments of the engine's `run`, then haproxy's own
  local owner options=()
  owner=$(stat -c %u:%g "$STATE/proxy")
  if [ "${ENGINE##*/}" = podman ] && [ "$(id -u)" != 0 ]; then options=(--userns keep-id); fi
  engine run --network host --user "$owner" "${options[@]}" --entrypoint haproxy --read-only --cap-drop ALL \
    --security-opt no-new-privileges --volume "$STATE/proxy:/etc/upkeep:ro" "$@"
}

load_config() { # into the proxy, which is started if necessary
  if [ "$(engine inspect -f '{{.State.Running}} {{.Config.Image}}' "$PROXY" 2>&1)" = "true $PROXY_IMAGE" ]; then
    engine kill --signal USR2 "$PROXY" >/dev/null
  else
    engine rm -f "$PROXY" >/dev/null 2>&1 || true
    haproxy -d --name "$PROXY" --restart unless-stopped --stop-signal USR1 --log-driver json-file \
      --log-opt max-size=50m "$PROXY_IMAGE" -W -db -f /etc/upkeep/haproxy.cfg >/dev/null
  fi
  local wanted deadline=$((SECONDS + 10))
  wanted=$(live)
  until [ "$(proxied)" = "$wanted" ]; do
    if ((SECONDS >= deadline)); then return 1; fi
    sleep 0.1
  done
}

render_config() { # container
  local tls=
  if [ -f "$STATE/proxy/tls.pem" ]; then tls=" ssl crt /etc/upkeep/tls.pem alpn h2,http/1.1"; fi
  sed -e "s|@BIND@|:$PROXY_PORT$tls|" -e "s|@CONTAINER@|$1|" -e "s|@PORT@|$(label "$1" port)|" \
    -e "s|@DRAIN@|$DRAIN_SECONDS|" "$BIN/haproxy.cfg"
}

# The former configuration stays as .before until the new one is proven; a run that finds it undoes the switch.
switch_to() { # container
  render_config "$1" >"$CONFIG.next"
  haproxy --rm "$PROXY_IMAGE" -c -q -f /etc/upkeep/haproxy.cfg.next >&2 ||
    die "HAProxy refuses $CONFIG.next; live: $(live)" "a valid configuration" \
      "see its message above; tls.pem must be readable for the owner of $STATE/proxy"
  if [ -f "$CONFIG" ]; then cp "$CONFIG" "$CONFIG.copy"; else : >"$CONFIG.copy"; fi
  mv "$CONFIG.copy" "$CONFIG.before" # renamed, because a killed cp leaves a partial file
  mv "$CONFIG.next" "$CONFIG"
  if ! load_config; then
    engine logs --tail 20 "$PROXY" >&2 || true
    undo_switch
    die "the proxy did not reach $1 and was switched back; live: $(live)" "the new release through the proxy" \
      "see the proxy's log above"
  fi
  rm "$CONFIG.before"
}

undo_switch() {
  mv "$CONFIG.before" "$CONFIG"
  if [ -n "$(live)" ]; then load_config; else engine rm -f "$PROXY" >/dev/null 2>&1 || true; fi
}

# Until the proxy's former process has ended, it may send requests to the former release.
drain() {
  local deadline=$((SECONDS + DRAIN_SECONDS + 5))
  while (($(engine top "$PROXY" | grep -c haproxy) > 2 && SECONDS < deadline)); do sleep 0.2; done
}

make_live() { # update|rollback, container, image: start it beside the live release, which it follows once approved
  local before
  before=$(live)
  say "start $2 beside ${before:-nothing}"
  launch "$2" "$3"
  approve "$2"
  say "switch to $2"
  switch_to "$2"
  record "$1" "$2"
  say "drain ${before:-nothing}"
  drain
  say "live: $2, $3"
}

tidy() { # stop containers that are not live, remove those that no rollback needs
  local name kept
  kept=$(releases)
  for name in $(engine ps -a --filter "label=upkeep.name=$NAME" --format '{{.Names}}'); do
    if [ "$name" = "$(live)" ]; then
      continue
    elif grep -qx "$name" <<<"$kept"; then
      engine stop "$name" >/dev/null
    else
      engine rm -f "$name" >/dev/null
    fi
  done
}

remove_images() { # repository: remove images pulled by digest that no container needs
  local image
  for image in $(engine images --format '{{.Tag}} {{.ID}}' "$1" | awk '$1 == "<none>" { print $2 }'); do
    engine image rm "$image" >/dev/null 2>&1 || true # refused while a container needs it, running or kept
  done
}

# Repair the state after an interrupted run or a crash: everything follows the configuration file.
recover() {
  local current
  if [ -f "$CONFIG.before" ]; then undo_switch; fi
  current=$(live)
  if [ -z "$current" ]; then return; fi
  if ! healthy "$current"; then
    engine restart "$current" >/dev/null || true
    wait_healthy "$current" || true
  fi
  if [ "$(proxied)" != "$current" ] && ! load_config; then
    say "warning: the live release $current does not answer" >&2
  fi
  drain
  if [ "$(releases | tail -n 1)" != "$current" ]; then
    record "$(if releases | grep -qx "$current"; then echo rollback; else echo update; fi)" "$current"
  fi
}
