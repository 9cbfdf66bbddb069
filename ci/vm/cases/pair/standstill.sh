#!/bin/bash
# Something stands still for a while: the wire, the other host, its zfs. Where ZFS can, the same processes go on.
. "$(dirname "$0")/lib.sh"

zfs_processes() { echo "$(on source 'pid_of "zfs send"') $(on target 'pid_of "zfs receive"')"; }

# same_go_on PROCESSES: the copy ends well, with those that were there before.
same_go_on() {
  [ "$(zfs_processes)" = "$1" ] || fail "other zfs processes than before"
  still_runs
  on source 'narrow 1gbit'
  client_ends 0
  never_said source 'tried again|had been sent before' client
  alike one
}

case_long_wire_is_down() {
  local before
  under_way 32 8mbit --retry-for 10m
  until_target_has 4
  before=$(zfs_processes)
  on target 'ip link set eth0 down'
  # Both sides take silence of 20 s for a lost connection.
  sleep 30
  still_runs
  on target 'ip link set eth0 up'
  wait_until 30 "the client is back" has_said source 'connected again' client
  same_go_on "$before"
}

# A host that stands still with all its processes is a dead wire to the other.
case_long_target_host_is_frozen() {
  local before
  under_way 32 8mbit --retry-for 10m
  until_target_has 4
  before=$(zfs_processes)
  kill -STOP "$(cat "$pair/target/qemu")"
  sleep 40
  still_runs
  kill -CONT "$(cat "$pair/target/qemu")"
  wait_until 60 "the client is back" has_said source 'connected again' client
  same_go_on "$before"
}

# Nobody touches a zfs that stands still. But ZFS 2.3 does not survive a stop: the signal interrupts its wait for bytes,
# the kernel begins the call anew when the process goes on, and finds the dataset "busy" with the first one. It keeps
# what it has, and the same run of the client goes on from there.
case_receive_is_stopped() {
  local before seconds
  seconds=$(pick 60 15)
  under_way 32 8mbit --stall-timeout 5s --retry-for 10m
  until_target_has 4
  before=$(zfs_processes)
  # shellcheck disable=SC2016 # for the guest
  on target 'kill -STOP $(pid_of "zfs receive")'
  sleep "$seconds"
  still_runs
  [ "$(zfs_processes)" = "$before" ] || fail "other zfs processes than before"
  said source 'culprit=receive' client
  # shellcheck disable=SC2016
  on target 'kill -CONT $(pid_of "zfs receive")'
  wait_until 60 "the client goes on" has_said source 'going on at' client
  on source 'narrow 1gbit'
  client_ends 0
  alike one
}

run_cases "$@"
