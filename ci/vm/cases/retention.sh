#!/bin/bash
# shellcheck source=ci/vm/cases/lib.sh
# Snapshots that go by rules, on real pools: what is never destroyed, and what zfs itself does not let go.
. "$(dirname "$0")/lib.sh"

# days DATASET COUNT: a snapshot of ours of each of the first days of 2020, of the dataset and all below it.
days() {
  local day
  for day in $(seq "$2"); do zfs snapshot -r "$1@$(of_day "$day")"; done
}
of_day() { echo "zferry_2020-01-0${1}T00:00:00Z"; }

# days_of DATASET: which of them are there.
days_of() { snapshots "$1" | sed -n 's/^zferry_2020-01-0\([0-9]\)T.*/\1/p' | paste -sd' '; }

# expect FOUND WANTED
expect() { [ "$1" = "$2" ] || fail "it is '$1', expected '$2'"; }

# pool_state POOL: all that it holds.
pool_state() { zfs list -Hp -r -t all -o name,guid,createtxg,userrefs "$1"; }

case_what_is_held_cloned_of_another_tool_or_the_newest_outlives_every_rule() {
  zfs create "tank/a b"
  zfs create -s -V 16M "tank/a b/v"
  days "tank/a b" 5
  zfs snapshot tank/a\ b@autosnap_2020-01-04_00:00:00_daily
  zfs hold keep "tank/a b@$(of_day 1)"
  zfs clone -o mountpoint=none "tank/a b@$(of_day 2)" tank/c
  pool_state tank >"$work/before"
  run 0 $zferry prune "tank/a b" --keep daily=2 -n
  said "$(of_day 1) +2020-01-01T00:00:00Z +keep +held"
  said "$(of_day 2) +2020-01-02T00:00:00Z +keep +cloned"
  said '@autosnap_2020-01-04_00:00:00_daily .* keep +not ours'
  said '1 would be destroyed, 5 kept'
  pool_state tank >"$work/after"
  diff "$work/before" "$work/after" || fail "a dry run has changed something"
  run 0 $zferry prune "tank/a b" --keep daily=2
  said '1 destroyed, 5 kept \(1 not ours, 1 held, 1 cloned, 1 newest, 1 daily\)'
  expect "$(days_of "tank/a b")/$(days_of "tank/a b/v")" "1 2 4 5/1 2 3 4 5"
  # What was in the way of the first goes away; and now the volume below as well.
  zfs release keep "tank/a b@$(of_day 1)"
  run 0 $zferry prune "tank/a b" -r --keep daily=2
  expect "$(days_of "tank/a b")/$(days_of "tank/a b/v")" "2 4 5/4 5"
  exists tank/a\ b@autosnap_2020-01-04_00:00:00_daily || fail "the snapshot of another tool is gone"
}

# One that is being sent is busy, and zfs says so only when it is tried: the others of its call go all the same.
case_one_that_is_being_sent_stays_for_now() {
  zfs create -o mountpoint=$mnt/a tank/a
  dd if=/dev/urandom of=$mnt/a/file bs=1M count=16 status=none
  days tank/a 4
  mkfifo "$work/pipe"
  zfs send "tank/a@$(of_day 2)" >"$work/pipe" &
  exec 7<"$work/pipe"
  head -c 1000000 <&7 >"$work/begun"
  run 0 $zferry prune tank/a --keep last=1
  said "left for now tank/a@$(of_day 2): .*(busy|held)"
  expect "$(days_of tank/a)" "2 4"
  exec 7<&-
  wait || true
  run 0 $zferry prune tank/a --keep last=1
  expect "$(days_of tank/a)" "4"
}

# A client that asks for less than the server keeps for it, and one that asks by hand for another's.
case_a_client_has_nothing_pruned_that_the_server_keeps() {
  local number
  export ZFERRY_CONFIG=$client_config
  manner=
  zfs create tank/a
  serve_by_keys --keep last=3 --allow receive-full,receive-incremental,resume,create-parents,prune
  for number in 1 2 3 4 5; do
    zfs snapshot "tank/a@$(of_day "$number")"
    replicate 0 --no-snapshot --keep last=2 --keep-target last=1 tank/a "$url/a"
  done
  expect "$(days_of tank/a)/$(days_of vault/in/a)" "4 5/3 4 5"
  no_holds_left
}

run_cases "$@"
