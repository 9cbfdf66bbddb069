# shellcheck shell=bash
# What the cases around two guests share. A case file sources this first, defines functions named case_*, and calls
# run_cases last; ci/vm/pair runs it, on this machine. Everything that touches a pool or a process happens `on` a guest,
# by what inside.sh offers there: nothing here may do so itself.
#
#   source  tank/data@one, which a case replicates     target  vault/in, the root of the server

pair=$work
# Of the case: the reason of its failure.
work=$pair/case
. "$(dirname "${BASH_SOURCE[0]}")/../assert.sh"

# How many cuts, MiB and seconds: pick LONG SHORT.
pick() { [ -z "${SHORT:-}" ] && echo "$1" || echo "$2"; }

# --- running cases ---------------------------------------------------------------------------------------------------

# The case functions of this file, in the order in which they stand there. Those named case_long_* are not for --short.
run_cases() {
  local file function name started status said
  if [ "${1:-}" = --case ]; then
    one_case "$2"
    return
  fi
  file=$(basename "$0" .sh)
  for function in $(sed -n 's/^\(case_[a-z0-9_]*\)().*/\1/p' "$0"); do
    name=$file/${function#case_}
    # shellcheck disable=SC2053 # a glob on purpose
    [[ $name == ${CASE:-*} ]] || continue
    [[ $function != case_long_* || -z ${SHORT:-} ]] || continue
    started=$SECONDS
    status=0
    rm -rf "$work"
    mkdir -p "$work"
    work=$pair setpriv --pdeathsig TERM timeout -k 10 900 bash "$0" --case "$function" >"$pair/case.log" 2>&1 || status=$?
    if [ $status -eq 0 ]; then
      said=$(paste -sd';' "$work/notes" 2>/dev/null)
      echo "ok $name ($((SECONDS - started)) s)${said:+: $said}" | tee -a "$TALLY"
    else
      echo "not ok $name: $(head -n 1 "$work/why" 2>/dev/null || echo "exit status $status")" | tee -a "$TALLY"
      tail -n 30 "$pair/case.log" | sed 's/^/# /'
      tail -q -n 12 "$pair"/*/share/{server,client}.log 2>/dev/null | sed 's/^/# said: /'
      tail -n 8 "$pair"/*/{console,kernel} 2>/dev/null | sed 's/^/# console: /'
    fi
  done
}

one_case() {
  set -Eeuo pipefail
  trap 'broken $? "$BASH_COMMAND"' ERR
  power_on source
  power_on target
  on source fresh
  on target fresh
  RANDOM=$SEED
  "$1"
}

# note WORDS: a figure for whoever reads the result.
note() { echo "$*" | tee -a "$work/notes"; }

# --- the machines ----------------------------------------------------------------------------------------------------

is_up() { [ -e "$pair/$1/share/up" ]; }
power_on() {
  touch "$pair/$1/power"
  # Time enough for two boots that hang and one that does not (ci/vm/run).
  wait_until 330 "$1 is up" is_up "$1"
}

# cut_power NAME: at once.
cut_power() {
  rm -f "$pair/$1/share/up"
  kill -9 "$(cat "$pair/$1/qemu")"
  wait_until 60 "$1 is off" test -e "$pair/$1/off"
  note "$1 off: $(tail -n 1 "$pair/$1/cuts")"
}

# In the middle of what it writes to its disk: ZFS writes every few seconds only, and then flushes.
cut_power_while_it_writes() {
  local before end=$((SECONDS + 20))
  before=$(stat -c %s "$pair/$1/writes")
  while [ $SECONDS -lt $end ] && [ "$(stat -c %s "$pair/$1/writes")" -lt $((before + (1 << 20))) ]; do
    pause 0.02
  done
  cut_power "$1"
}

# on NAME COMMAND: what the shell of that guest runs; what it says and its status are ours.
on() {
  local box=$pair/$1/share number
  number=$(($(cat "$pair/$1/asked") + 1))
  echo $number >"$pair/$1/asked"
  printf '. /host/cases/pair/inside.sh\n%s\n' "$2" >"$box/$number.new"
  mv "$box/$number.new" "$box/$number.sh"
  wait_until 180 "$1 has an answer to: $2" test -e "$box/$number.status"
  cat "$box/$number.out"
  return "$(cat "$box/$number.status")"
}

# --- the copy --------------------------------------------------------------------------------------------------------

# under_way MIB RATE [OPTION...]: the copy of so many MiB, over a wire of that rate, has begun.
under_way() {
  on source "make_data $1; narrow $2"
  on target start_server
  shift 2
  on source "start_client $*"
}

target_has() { [ "$(on target 'property used $copy')" -ge $(($1 << 20)) ]; }
# until_target_has MIB: so much of the copy is durable.
until_target_has() { wait_until 120 "the target has $1 MiB" target_has "$1"; }

client_ended() { [ -e "$pair/source/share/client.ended" ]; }
# client_ends STATUS
client_ends() {
  wait_until 300 "the client ends" client_ended
  local status
  status=$(cat "$pair/source/share/client.ended")
  [ "$status" -eq "$1" ] || fail "the client ended with $status, expected $1: $(tail -n 1 "$pair/source/share/client.log")"
}
still_runs() { ! client_ended || fail "the client has ended: $(tail -n 1 "$pair/source/share/client.log")"; }

# said SIDE REGEX WHO: the client or the server in its log; case does not matter.
has_said() { grep -qiE -- "$2" "$pair/$1/share/$3.log"; }
said() { has_said "$@" || fail "the $3 did not say /$2/"; }
never_said() { ! has_said "$@" || fail "the $3 said /$2/"; }

# alike NAME...: both sides have exactly these snapshots, guid and files, both pools are sound, and nothing of the copy
# is left anywhere but the copy.
alike() {
  local side left name
  [ "$(on target 'snapshots $copy | cut -f 1 | paste -sd" "')" = "$*" ] || fail "other snapshots than $*"
  for name in "$@"; do
    [ "$(on source "property guid \$dataset@$name")" = "$(on target "property guid \$copy@$name")" ] || fail "guid of @$name"
    [ "$(on source "tree \$dataset@$name")" = "$(on target "tree \$copy@$name")" ] || fail "the files of @$name differ"
  done
  on target 'pkill -TERM -x zferry; wait_until 30 "the server ends" test -e /share/server.ended'
  [ "$(cat "$pair/target/share/server.ended")" -eq 0 ] || fail "the server ended with $(cat "$pair/target/share/server.ended")"
  for side in source target; do
    left=$(on $side leftovers)
    [ -z "$left" ] || fail "left on $side: $(paste -sd';' <<<"$left")"
    ! grep 'panicked at' "$pair/$side/share"/*.log || fail "zferry panicked"
  done
}
