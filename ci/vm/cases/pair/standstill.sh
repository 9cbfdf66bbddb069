#!/bin/bash
# The wire or the target's zfs stands still for a while: the same session and the same zfs processes go on.
. "$(dirname "$0")/lib.sh"

zfs_processes() { echo "$(on source 'pid_of "zfs send"') $(on target 'pid_of "zfs receive"')"; }

# go_on PROCESSES: the copy ends well, with those that were there before.
same_go_on() {
  [ "$(zfs_processes)" = "$1" ] || fail "other zfs processes than before"
  still_runs
  on source 'narrow 1gbit'
  client_ends 0
  never_said source 'tried again|had been sent before' client
  alike one
}

case_wire_is_down() {
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

case_receive_is_stopped() {
  local before seconds
  seconds=$(pick 60 15)
  under_way 32 8mbit --stall-timeout 5s
  until_target_has 4
  before=$(zfs_processes)
  on target 'kill -STOP $(pid_of "zfs receive")'
  sleep "$seconds"
  still_runs
  on target 'kill -CONT $(pid_of "zfs receive")'
  said source 'culprit=receive' client
  same_go_on "$before"
}

run_cases "$@"
