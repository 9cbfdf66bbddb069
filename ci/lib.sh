# shellcheck shell=bash
# What ci/soak and ci/bench-resume share: the processes of a run, streams through the relay of tests/chaos, hosts with a
# stand-in for zfs, and memory. Whoever sources this has set `program`, the folder of the release build, and sets `here`
# to a folder of the run and `bytes` to the length of its streams. Nothing here may outlive the script that began it.

running=()

# kill_running: whatever has begun and not been forgotten.
kill_running() {
  [ ${#running[@]} -eq 0 ] || kill -KILL "${running[@]}" 2>/dev/null
  return 0
}

# begin NAME COMMAND...: in the background; what it says goes to $here/NAME.log, its number is `last`.
begin() {
  local name=$1
  shift
  # Emptied here: whoever looks into it must not find what another process said.
  : >"$here/$name.log"
  "$@" >>"$here/$name.log" 2>&1 &
  last=$!
  running+=("$last")
}

# forget PID: it has ended.
forget() {
  local pid left=()
  for pid in "${running[@]}"; do
    [ "$pid" = "$1" ] || left+=("$pid")
  done
  running=("${left[@]}")
}

# ended PID -SIGNAL: sends it that, waits for its end, and passes on its exit status.
ended() {
  local status=0
  kill "$2" "$1" 2>/dev/null
  wait "$1" 2>/dev/null || status=$?
  forget "$1"
  return $status
}

# until_gone WORD: until no process has it on its command line.
until_gone() {
  local tries
  for ((tries = 0; tries < 3000; tries++)); do
    grep -qlzF -- "$1" /proc/[0-9]*/cmdline 2>/dev/null || return 0
    sleep 0.01
  done
  echo "still running: $1" >&2
  return 1
}

# The address that a log says its process listens on.
address_in() {
  local line tries
  for ((tries = 0; tries < 500; tries++)); do
    # By `read`, which leaves a line alone that is not written to its end.
    while read -r line; do
      case $line in 'listening on '*) echo "${line#listening on }" && return ;; esac
    done <"$1"
    sleep 0.02
  done
  echo "nobody listens: $(cat "$1")" >&2
  return 1
}

# The number behind NAME= in the counters on stdin; 0 where it is not there.
field() {
  grep -oE "(^| )$1=[0-9]+" | tail -n 1 | grep -oE '[0-9]+$' || echo 0
}

# The sum of all faults in the counters on stdin.
faults() {
  tail -n 1 | tr ' ' '\n' | awk -F= '$1 !~ /^(control|lanes|strangers)/ { sum += $2 } END { print sum + 0 }'
}

port=20000
# through RELAY_FLAGS... -- SEND_FLAGS...: a stream through a relay. Sets `seconds`, `rss` in bytes, and `counters`.
through() {
  local relay=() listen at status=0 line
  while [ "$1" != -- ]; do
    relay+=("$1")
    shift
  done
  shift
  port=$((20000 + (port - 20000 + 2) % 10000))
  listen=127.0.0.1:$port
  begin relay "$program/zferry-chaos" --to "$listen" "${relay[@]}"
  local proxy=$last
  at=$(address_in "$here/relay.log") || return 1
  line=$("$program/zferry-pump" --bytes "$bytes" --pipe 1048576 --check --seconds-max 1200 --port "$port" \
    --receiver "$program/zferry" -v receive --listen "$listen" --plain \
    --sender "$program/zferry" -v send "$at" --plain "$@" 2>"$here/stream.log") || status=$?
  ended "$proxy" -TERM
  counters=$(tail -n 1 "$here/relay.log")
  read -r seconds _ rss <<<"$line"
  rss=$((${rss:-0} * 1024))
  return $status
}

# again BLOCK: bytes on the wire that a stream of $bytes in blocks of BLOCK bytes did not need: whatever is beyond it and
# its headers.
again() {
  local up lanes
  up=$(field lanes-up <<<"$counters")
  lanes=$(field lanes <<<"$counters")
  local more=$((up - bytes - 48 * (bytes / $1 + 1) - 32 * lanes))
  echo $((more > 0 ? more : 0))
}

# Makes a host with a stand-in for zfs in the folder $1: tank/a@s of $2 bytes, and the pool backup.
host() {
  local dataset
  mkdir -p "$1/bin"
  ln -s "$PWD/tests/support/zfs-stand-in" "$1/bin/zfs"
  for dataset in tank tank/a backup; do
    mkdir -p "$1/pools/$dataset/%/snapshots" "$1/pools/$dataset/%/props"
    echo filesystem >"$1/pools/$dataset/%/kind"
  done
  mkdir -p "$1/pools/tank/a/%/snapshots/s"
  head -c "$2" /dev/urandom >"$1/pools/tank/a/%/snapshots/s/content"
  echo 17298607643706785793 >"$1/pools/tank/a/%/snapshots/s/guid"
  echo 42 >"$1/pools/tank/a/%/snapshots/s/createtxg"
}

# The most memory that a process had at once so far, in bytes.
peak_rss() {
  awk '/^VmHWM:/ { print $2 * 1024 }' "/proc/$1/status" 2>/dev/null || true
}

# Reads stdin in bursts with pauses between, and says how much it was.
read_slowly() {
  local count sum=0
  while count=$(head -c 536870912 | wc -c) && [ "$count" -gt 0 ]; do
    sum=$((sum + count))
    sleep 0.05
  done
  echo "$sum"
}

# flat_memory BYTES CACHE: so many bytes into a reader that is slower, with so many MiB of cache on both sides. Sets
# `most`, the memory that a side had at once, in bytes.
flat_memory() {
  local receiver reader sender pid now at status=0
  most=0
  mkfifo "$here/out"
  (read_slowly <"$here/out" >"$here/read") &
  reader=$!
  "$program/zferry" receive --listen 127.0.0.1:0 --plain --cache "$2MiB" >"$here/out" 2>"$here/receive.log" &
  receiver=$!
  running+=("$reader" "$receiver")
  at=$(address_in "$here/receive.log") || return 1
  "$program/zferry" send "$at" --plain --cache "$2MiB" --connections 2 < <(head -c "$1" /dev/zero) >"$here/send.log" 2>&1 &
  sender=$!
  running+=("$sender")
  while kill -0 "$sender" 2>/dev/null; do
    for pid in "$sender" "$receiver"; do
      now=$(peak_rss "$pid")
      [ "${now:-0}" -le "$most" ] || most=$now
    done
    sleep 0.2
  done
  for pid in "$sender" "$receiver" "$reader"; do
    wait "$pid" || status=1
    forget "$pid"
  done
  [ $status -eq 0 ] || { echo "a side has failed" >&2; return 1; }
  [ "$(cat "$here/read")" = "$1" ] || { echo "$(cat "$here/read") of $1 bytes came" >&2; return 1; }
}
