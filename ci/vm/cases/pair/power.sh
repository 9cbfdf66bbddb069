#!/bin/bash
# The power of either host goes off in the middle of a copy, and what was not flushed is lost.
. "$(dirname "$0")/lib.sh"

# Where the client went on, in MiB, each time.
went_on_at() { sed -nE 's/.*going on at ([0-9]+)(\.[0-9]+)? MiB.*/\1/p' "$pair/source/share/client.log"; }

# kept MIB: so much was seen on the target's disk before the last cut, of which small files take some more than a
# stream does; it was not sent again, nor was anything given up that had been kept before.
kept() {
  went_on_at | sort -n -C || fail "the copy went back: $(went_on_at | paste -sd' ')"
  [ "$(went_on_at | tail -n 1)" -ge $(($1 - 3)) ] || fail "the target had $1 MiB, but: $(went_on_at | paste -sd' ')"
}

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
  kept $((16 * cuts - 8))
  note "$((($(on source sent) - before >> 20) - 16 - 16 * cuts)) MiB on the wire more than the data"
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
  kept $((16 * cuts - 8))
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
