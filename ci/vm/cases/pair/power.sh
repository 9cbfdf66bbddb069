#!/bin/bash
# The power of either host goes off in the middle of a copy, and what was not flushed is lost.
. "$(dirname "$0")/lib.sh"

# One run of the client rides through all of it: what the target had on its disk is never sent again.
case_target() {
  local cuts number before
  cuts=$(pick 3 1)
  under_way $((16 + 16 * cuts)) 24mbit --retry-for 10m
  before=$(on source sent)
  for ((number = 1; number <= cuts; number++)); do
    until_target_has $((16 * number - 8))
    cut_power_while_it_writes target
    power_on target
    on target 'has_token $copy' || fail "the target has lost all"
    on target start_server
  done
  client_ends 0
  said source 'had been sent before' client
  # For every cut, at most what was written in the 5 s of a transaction group, in those being written, in the pipe.
  local again=$(($(on source sent) - before - ((16 + 16 * cuts) << 20)))
  note "$((again >> 20)) MiB more than the data"
  [ $again -lt $((cuts * (20 << 20))) ] || fail "$again bytes were sent again for $cuts cuts"
  alike one
}

# The client is gone with its host, and a new run goes on: the snapshot is there and held, and so is what was sent.
case_source() {
  local cuts number
  cuts=$(pick 2 1)
  under_way $((16 + 16 * cuts)) 24mbit --retry-for 10m
  for ((number = 1; number <= cuts; number++)); do
    until_target_has $((16 * number - 8))
    cut_power source
    power_on source
    [ -n "$(on source 'zferry_holds tank')" ] || fail "the snapshot is not held any more"
    on source 'narrow 24mbit; start_client --retry-for 10m'
  done
  client_ends 0
  said source 'had been sent before' client
  alike one
}

case_long_both_at_once() {
  under_way 32 24mbit --retry-for 10m
  until_target_has 8
  cut_power source
  cut_power_while_it_writes target
  power_on target
  power_on source
  on target start_server
  on source 'narrow 24mbit; start_client --retry-for 10m'
  client_ends 0
  said source 'had been sent before' client
  alike one
}

run_cases "$@"
