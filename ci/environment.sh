# shellcheck shell=sh
# Sourced by each Python job: activates the environment of requirements.lock, created here or linked from UPKEEP_VENV.
test -z "${UPKEEP_VENV:-}" || ln -sfn "$UPKEEP_VENV" .venv
make --silent .venv PYTHON=python3 # in CI the variable PYTHON is a version, such as 3.11
# shellcheck source=/dev/null  # made by the line above
. .venv/bin/activate
export PYTHONPATH="$PWD/src" # use this checkout's code, not the code installed in a linked environment
