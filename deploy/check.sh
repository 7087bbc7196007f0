#!/usr/bin/env bash
# check.sh: tell whether this server has what a deployment needs.
# shellcheck source=deploy/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

check_server
say "$(uname -n) has what a deployment needs"
