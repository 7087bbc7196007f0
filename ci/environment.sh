# shellcheck shell=sh
# Sourced by each job in Python: the environment of requirements.lock, made here or linked from UPKEEP_VENV, is active.
test -z "${UPKEEP_VENV:-}" || ln -sfn "$UPKEEP_VENV" .venv
make --silent .venv
# shellcheck source=/dev/null  # made by the line above
. .venv/bin/activate
export PYTHONPATH="$PWD/src" # this checkout's code, whatever a linked environment has installed
