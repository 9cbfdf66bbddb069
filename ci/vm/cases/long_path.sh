#!/bin/bash
# A path of 100 ms and 400 Mbit/s with the buffers that a kernel has by itself, a few MiB a connection: too little for one
# connection to fill it. For LONG alone, but for the shortest look: it needs a machine that does nothing else.
. "$(dirname "$0")/lib.sh"

# What is on its way when the path is full, in bytes.
path=$((400000000 / 8 / 10))

lengthen_link() {
  tc -n client qdisc add dev to_server root netem delay 50ms rate 400mbit limit 20000
  tc -n server qdisc add dev to_client root netem delay 50ms limit 20000
}

# What all connections together may have on their way now, in bytes: each as much as the other side offers, and as its own
# congestion control dares.
window_now() {
  "${on_client[@]}" ss -tin "dport = :$port" | awk '
    match($0, / mss:[0-9]+/) { mss = substr($0, RSTART + 5, RLENGTH - 5) }
    match($0, / cwnd:[0-9]+/) { dares = mss * substr($0, RSTART + 6, RLENGTH - 6) }
    match($0, / snd_wnd:[0-9]+/) { offered = substr($0, RSTART + 9, RLENGTH - 9); sum += dares < offered ? dares : offered }
    END { printf "%d\n", sum }'
}

# Mbit/s since the last call.
rate_now() {
  local bytes now
  bytes=$(bytes_over_wire) now=$(date +%s%N)
  [ -z "${bytes_before:-}" ] || echo $(((bytes - bytes_before) * 8000 / (now - before)))
  bytes_before=$bytes before=$now
}

# start_pouring [FLAG...]: sends zeros until the case ends.
start_pouring() {
  start_receive -- sh -c 'exec cat >/dev/null'
  (
    trap - ERR
    exec "${on_client[@]}" "$zferry" -v send "$address:$port" --plain "$@" </dev/zero >"$work/out" 2>"$work/err"
  ) &
  client=$!
}

# has_window BYTES
has_window() { [ "$(window_now)" -ge "$1" ]; }

# Sends without a copy, which are tried first, may not make the kernel of the other side offer less: from registered huge
# pages each segment was charged with up to 2 MiB, and a connection stayed at 24 KiB.
case_four_connections_are_offered_a_full_path() {
  lengthen_link
  start_pouring --connections 4
  wait_until 30 "four connections may fill the path" has_window $path
}

case_long_auto_fills_a_path_of_100_ms() {
  local second window largest=0 rate
  lengthen_link
  start_pouring --connections auto
  rate_now
  for second in $(seq 40); do
    sleep 1
    window=$(window_now)
    [ "$window" -le "$largest" ] || largest=$window
    [ "$second" -ne 30 ] || rate_now
    echo "$second s: $window bytes"
  done
  rate=$(rate_now)
  echo "$rate Mbit/s of 400, window $largest of $path"
  [ "$largest" -ge $((2 * path)) ] || fail "a window of $largest bytes, less than twice $path"
  [ "$rate" -ge 360 ] || fail "$rate Mbit/s of 400"
}

run_cases "$@"
