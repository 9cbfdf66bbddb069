#!/bin/bash
# zferry beside syncoid: the same snapshot over the same wire, cut at the same byte. Both must end with the whole; what
# they sent again for that, and how often they had to be called, is left in /share/figures, lines of KEY and number for
# ci/bench-resume, whose relay is /share/zferry-chaos.
. "$(dirname "$0")/lib.sh"

ssh_port=2222
relay_port=9000
stream_mib=64
# A good half of the stream.
cut_at=$((36 << 20))

figure() { printf '%s\t%s\n' "$1" "$2" | tee -a /share/figures; }

# start_relay PORT [RULE]: on the client's host, to that port of the server's.
start_relay() {
  echo "${2:-}" >"$work/plan"
  (
    trap - ERR
    exec "${on_client[@]}" /share/zferry-chaos --quiet --listen 127.0.0.1:$relay_port --to "$address:$1" --plan "$work/plan"
  ) >"$work/relay" 2>&1 &
  relay=$!
  wait_until 20 "the relay listens" grep -q 'listening on' "$work/relay"
}

# relay_ends: sets `up`, the bytes that the server was given.
relay_ends() {
  kill -TERM "$relay"
  wait "$relay"
  up=$(tail -n 1 "$work/relay" | tr ' ' '\n' | awk -F= '/-up=/ { sum += $2 } END { print sum }')
}

zferry_port=$port
by_zferry() {
  timeout -k 10 $run_limit "${on_client[@]}" "$zferry" replicate --plain --snapshot one tank/data "zferry://127.0.0.1:$relay_port/$1"
}

syncoid_port=$ssh_port
# The same stream, uncompressed, and only this snapshot; all else is as it comes.
by_syncoid() {
  timeout -k 10 $run_limit "${on_client[@]}" syncoid --no-sync-snap --sendoptions='L c' --compress=none --quiet --sshport=$relay_port \
    --sshkey="$work/key" --sshoption=StrictHostKeyChecking=no --sshoption=UserKnownHostsFile=/dev/null \
    tank/data "root@127.0.0.1:vault/in/$1"
}

# carry WHO NAME [RULE]: copies to vault/in/NAME, calling WHO until the snapshot is there. Sets `up` and `calls`.
carry() {
  local to=${1}_port
  start_relay "${!to}" "${3:-}"
  calls=0
  until exists "vault/in/$2@one"; do
    [ $calls -lt 5 ] || fail "$1 was called $calls times and @one is not there"
    # As soon as a person would notice.
    [ $calls -eq 0 ] || pause 5
    calls=$((calls + 1))
    echo "+ $1, call $calls"
    "by_$1" "$2" || echo "$1 ended with $?"
  done
  relay_ends
  replicated "vault/in/$2" tank/data one
}

# beside WHO RULE: without a cut and with it.
beside() {
  local whole
  carry "$1" "$1-whole"
  whole=$up
  [ $calls -eq 1 ] || fail "$1 had to be called $calls times without any cut"
  carry "$1" "$1-cut" "$2"
  grep -q ' cut-all=1$' "$work/relay" || fail "there was no cut: $(tail -n 1 "$work/relay")"
  figure "$1_again" "$(awk "BEGIN { printf \"%.3f\", ($up - $whole) / 1048576 }")"
  figure "$1_calls" $calls
}

case_long_beside_syncoid_at_the_same_cut() {
  make_heavy tank/data $stream_mib
  zfs snapshot tank/data@one
  narrow_link 160mbit
  serve
  start_sshd $ssh_port
  beside zferry "lane:0#1 up $cut_at cut-all rst"
  beside syncoid "any#1 up $cut_at cut-all rst"
}

run_cases "$@"
