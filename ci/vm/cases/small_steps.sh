#!/bin/bash
# Many small snapshots over one session: what each costs, beside the same steps by `zfs send | zfs receive` alone. A ratio
# of two times needs a machine that does nothing else, and more than a minute: for LONG alone.
. "$(dirname "$0")/lib.sh"

steps=200
# Emulated, a step takes half a second.
run_limit=400
case_limit=1000

# now_ms: of this moment.
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# A dataset with a snapshot of 1 MiB and so many small ones.
make_small_history() {
  local number
  zfs create -o mountpoint=$mnt/data tank/data
  head -c 1M /dev/urandom >$mnt/data/first
  zfs snapshot tank/data@s0
  for number in $(seq $steps); do
    head -c 4K /dev/urandom >"$mnt/data/$number"
    zfs snapshot "tank/data@s$number"
  done
}

bare_steps() {
  local number
  for number in $(seq $steps); do
    zfs send -L -c -i "tank/data@s$((number - 1))" "tank/data@s$number" | zfs receive -s -u vault/bare
  done
}

case_long_small_steps_cost_at_most_twice_the_bare_commands() {
  local begun bare ours
  make_small_history
  zfs send -L -c tank/data@s0 | zfs receive -u vault/bare
  # shellcheck disable=SC2119
  serve
  replicate 0 --snapshot s0 tank/data $url/data
  begun=$(now_ms)
  bare_steps
  bare=$(($(now_ms) - begun))
  begun=$(now_ms)
  replicate 0 --no-snapshot tank/data $url/data
  ours=$(($(now_ms) - begun))
  echo "$steps steps: bare $bare ms, ours $ours ms"
  # shellcheck disable=SC2046 # names
  has_snapshots vault/in/data tank/data $(seq -f 's%g' 0 $steps)
  [ "$ours" -le $((2 * bare)) ] || fail "$steps steps took $ours ms, and $bare ms by the bare commands"
}

run_cases "$@"
