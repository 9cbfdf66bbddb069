#!/bin/bash
# The pools change in the middle of a copy: the target is full, the target is modified, the snapshot is destroyed.
. "$(dirname "$0")/lib.sh"

case_long_target_is_full_and_then_is_not() {
  # shellcheck disable=SC2016 # for the guest
  on target 'zfs create -o reservation=$(($(property available vault) - (12 << 20))) vault/filler'
  under_way 24 1gbit --retry-for 10m
  wait_until 120 "the client says that there is no room" has_said source 'out of space' client
  still_runs
  on target 'zfs destroy vault/filler'
  client_ends 0
  said source 'had been sent before' client
  alike one
}

# @one is on both sides, and a part of @two is on the target; nobody carries it on.
second_is_cut_off() {
  under_way 1 1gbit
  client_ends 0
  on source 'head -c 24M /dev/urandom >/mnt/data/more; zfs snapshot $dataset@two; narrow 16mbit'
  on source 'snapshot=two start_client'
  wait_until 60 "the target has a part" on target '[ "$(property used $copy/%recv)" -ge 4000000 ]'
  on source 'pkill -KILL -x zferry; narrow 1gbit'
  wait_until 60 "the target keeps the part" on target 'has_token $copy'
}

# run STATUS [OPTION...]
run() {
  local status=$1
  shift
  on source "snapshot=${snapshot:-two} start_client $*"
  client_ends "$status"
}

case_long_target_is_modified() {
  second_is_cut_off
  on target 'zfs set readonly=off canmount=noauto mountpoint=/mnt/changed $copy && zfs mount $copy'
  on target 'echo changed >/mnt/changed/file; zfs unmount $copy; zfs set readonly=on $copy'
  run 2 --retry-for 0
  said source 'modified' client
  on target 'has_token $copy' || fail "the part is gone"
  on target 'zfs rollback $copy@one'
  run 0 --retry-for 0
  alike one two
}

case_long_snapshot_is_destroyed_by_force() {
  second_is_cut_off
  on source 'zferry_holds tank | while read -r name tag; do zfs release "$tag" "$name"; done; zfs destroy $dataset@two'
  on source 'zfs snapshot $dataset@three'
  snapshot=three run 2 --retry-for 0
  said source 'no longer exists on the source' client
  on target 'has_token $copy' || fail "the part is gone"
  snapshot=three run 0 --on-dead-token abort-and-restart
  alike one three
}

run_cases "$@"
