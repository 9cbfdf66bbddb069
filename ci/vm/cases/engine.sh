#!/bin/bash
# `zferry send` and `zferry receive`: the engine alone, between pipes or around a command.
. "$(dirname "$0")/lib.sh"

case_around_zfs() {
  make_small tank/data
  zfs snapshot tank/data@one
  change_small 1
  zfs snapshot tank/data@two
  start_receive -- zfs receive -u vault/in/data
  run 0 "${on_client[@]}" "$zferry" send "$address:$port" --plain -- zfs send -L -c tank/data@one
  receive_ends 0
  start_receive -- zfs receive -u vault/in/data
  run 0 "${on_client[@]}" "$zferry" send "$address:$port" --plain -- zfs send -L -c -i @one tank/data@two
  receive_ends 0
  replicated vault/in/data tank/data one two
}

case_between_pipes() {
  make_heavy tank/data 16
  zfs snapshot tank/data@one
  zfs send -L -c tank/data@one >"$work/stream"
  start_receive
  # shellcheck disable=SC2016 # for the inner shell
  run 0 bash -c 'zfs send -L -c tank/data@one | "$@"' - "${on_client[@]}" "$zferry" send "$address:$port" --plain
  receive_ends 0
  cmp "$work/stream" "$work/received" || fail "what came out is not what went in"
}

case_nothing_at_all() {
  start_receive
  run 0 bash -c '"$@" </dev/null' - "${on_client[@]}" "$zferry" send "$address:$port" --plain
  receive_ends 0
  [ ! -s "$work/received" ] || fail "something came out of nothing"
}

case_slow_drip() {
  start_receive
  # Less than a block, and then a pause: the far side must not wait for the block to fill.
  # shellcheck disable=SC2016 # for the inner shell
  run 0 bash -c '(echo first; for _ in $(seq 100); do grep -q first "$0" && break; sleep 0.1; done; grep -q first "$0" && echo second) | "$@"' \
    "$work/received" "${on_client[@]}" "$zferry" send "$address:$port" --plain
  receive_ends 0
  [ "$(cat "$work/received")" = $'first\nsecond' ] || fail "the first line did not arrive before the second was written"
}

case_sending_command_fails() {
  start_receive
  run 2 "${on_client[@]}" "$zferry" send "$address:$port" --plain -- sh -c 'head -c 3000000 /dev/urandom; exit 5'
  said '5'
  receive_ends 2
}

case_receiving_command_fails() {
  start_receive -- sh -c 'head -c 100000 >/dev/null; exit 6'
  run 2 "${on_client[@]}" "$zferry" send "$address:$port" --plain -- head -c 30000000 /dev/urandom
  receive_ends 2
}

run_cases "$@"
