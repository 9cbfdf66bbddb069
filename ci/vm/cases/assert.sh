# shellcheck shell=bash
# How a case fails, and how it waits: for the cases in a guest (lib.sh) and for those around two guests (pair/lib.sh).
# Whoever sources this has `work`, a folder of the case: the reason of its failure is in $work/why.

# The first reason counts: what follows it is its consequence.
fail() {
  [ -s "$work/why" ] || echo "$*" >"$work/why"
  echo "FAILED: $*"
  trap - ERR
  exit 1
}

broken() {
  local status=$1 command=$2 frame
  for frame in "${!BASH_SOURCE[@]}"; do
    [ "${BASH_SOURCE[$frame]}" = "$0" ] || continue
    fail "line ${BASH_LINENO[$((frame - 1))]}: \`$command\` ended with $status"
  done
  fail "\`$command\` ended with $status"
}

# Nobody ever writes to it: `read -t` from it is a sleep without a process, of which a small machine has few to spare.
exec {silence}<> <(:)
pause() { read -rt "$1" -u "$silence" || true; }

# wait_until SECONDS WHAT COMMAND...: until the command succeeds.
wait_until() {
  local limit=$1 what=$2 end
  shift 2
  end=$((SECONDS + limit))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "not within $limit s: $what"
    pause 0.1
  done
}
