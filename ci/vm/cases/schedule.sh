#!/bin/bash
# The scheduler with real ZFS: by rhythm and by what was written, over its death.
. "$(dirname "$0")/lib.sh"

start_schedule() {
  "${on_client[@]}" "$zferry" schedule --config "$work/zferry.toml" --state "$work/state" >>"$work/schedule.log" 2>&1 &
  scheduler=$!
}

stop_schedule() {
  local status=0
  kill -TERM "$scheduler"
  wait_until 60 "the scheduler ends" has_ended "$scheduler"
  wait "$scheduler" || status=$?
  [ $status -eq 0 ] || fail "the scheduler ended with $status: $(tail -n 1 "$work/schedule.log")"
}

# copies NAME AT_LEAST
copies() { [ "$(snapshots "vault/in/$1" 2>/dev/null | wc -l)" -ge "$2" ]; }

case_by_rhythm_and_by_what_was_written() {
  make_small tank/a
  zfs create -o mountpoint="$mnt/b" tank/b
  serve
  cat >"$work/zferry.toml" <<TOML
parallel = 2
[defaults]
plain = true
[[job]]
name = "a"
source = "tank/a"
target = "$url/a"
every = "3s"
[[job]]
name = "b"
source = "tank/b"
target = "$url/b"
written = "4MiB"
check = "1s"
TOML
  run 0 "$zferry" config check --config "$work/zferry.toml"
  start_schedule
  wait_until 60 "the first copies" copies b 1
  wait_until 60 "copies by rhythm" copies a 3
  # Less than enough, and then enough.
  head -c 1000000 /dev/urandom >"$mnt/b/little"
  zpool sync tank
  pause 3
  ! copies b 2 || fail "b was copied for less than it waits for"
  head -c 5000000 /dev/urandom >"$mnt/b/much"
  zpool sync tank
  wait_until 60 "a copy by what was written" copies b 2
  # Whatever it was about, the next process goes on.
  kill -KILL "$scheduler"
  wait "$scheduler" 2>/dev/null || true
  count=$(snapshots vault/in/a | wc -l)
  start_schedule
  wait_until 90 "copies after its death" copies a $((count + 2))
  stop_schedule
  cat "$work/schedule.log"
  same_trees vault/in/b tank/b "$(snapshots vault/in/b | tail -n 1 | cut -f 1)"
  no_holds_left
}

run_cases "$@"
