#!/bin/bash
# The flags that tune a transfer: each changes what it says it changes, and never what arrives. Those named case_long_*
# are run by ci/soak.
. "$(dirname "$0")/lib.sh"

# Text that ZFS left uncompressed: there is something to win on the wire.
make_text() {
  make_small tank/data -o compression=off
  for copy in 1 2 3 4; do
    cat /usr/lib/python3*/*.py >"$files/text$copy"
  done
  zfs snapshot tank/data@one
}

# has_io_uring PID: the process has a ring among its files.
has_io_uring() { [ -n "$(find "/proc/$1/fd" -lname 'anon_inode:\[io_uring\]')" ]; }

case_long_zstd_saves_wire() {
  make_text
  stream=$(zfs send -nP -L -c tank/data@one | awk '$1 == "size" { print $2 }')
  serve
  before=$(bytes_over_wire)
  replicate 0 --compress zstd:3 --snapshot one tank/data "$url/packed"
  packed=$(($(bytes_over_wire) - before))
  before=$(bytes_over_wire)
  replicate 0 --compress none --snapshot one tank/data "$url/plain"
  plain=$(($(bytes_over_wire) - before))
  echo "stream $stream, on the wire: zstd:3 $packed, none $plain"
  replicated vault/in/packed tank/data one
  replicated vault/in/plain tank/data one
  [ "$plain" -ge "$stream" ] || fail "--compress none sent $plain bytes for a stream of $stream"
  [ "$packed" -lt $((stream / 2)) ] || fail "--compress zstd:3 sent $packed bytes for a stream of $stream"
}

case_long_zstd_with_random_bytes() {
  make_heavy tank/data 8
  zfs snapshot tank/data@one
  serve
  before=$(bytes_over_wire)
  replicate 0 --compress zstd --snapshot one tank/data "$url/data"
  sent=$(($(bytes_over_wire) - before))
  replicated vault/in/data tank/data one
  [ "$sent" -lt $((9 * 1024 * 1024)) ] || fail "8 MiB of random bytes took $sent bytes on the wire"
}

case_threads_instead_of_io_uring() {
  make_heavy tank/data 24
  zfs snapshot tank/data@one
  serve
  under_way --io threads --snapshot one tank/data "$url/data"
  ! has_io_uring "$client" || fail "--io threads, and yet there is a ring"
  widen_link
  replicate_ends 0
  replicated vault/in/data tank/data one
}

case_io_uring() {
  make_heavy tank/data 24
  zfs snapshot tank/data@one
  serve
  under_way --io uring --snapshot one tank/data "$url/data"
  has_io_uring "$client" || fail "--io uring, and yet there is no ring"
  widen_link
  replicate_ends 0
  replicated vault/in/data tank/data one
}

case_long_four_connections() {
  make_heavy tank/data 24
  zfs snapshot tank/data@one
  serve
  under_way --connections 4 --snapshot one tank/data "$url/data"
  connections=$("${on_client[@]}" ss -Htn state established dst $address | wc -l)
  [ "$connections" -ge 4 ] || fail "$connections connections instead of 4"
  widen_link
  replicate_ends 0
  replicated vault/in/data tank/data one
}

case_long_all_flags_together() {
  make_text
  serve
  replicate 0 --compress zstd:3 --io threads --connections 4 --workers 2 --pin off --cache 16M --block-size 256K \
    --snapshot one tank/data "$url/a"
  change_small 1
  zfs snapshot tank/data@two
  replicate 0 --compress none --io uring --connections 2 --workers 1 --pin auto --cache 32M --block-size 1M \
    --snapshot two tank/data "$url/a"
  replicated vault/in/a tank/data one two
}

case_long_memory_stays_within_the_cache() {
  make_heavy tank/data 96
  zfs snapshot tank/data@one
  serve
  run 0 "${on_client[@]}" python3 -c '
import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
print("largest process:", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, "KiB", file=open(sys.argv[1], "w"))
sys.exit(status)' "$work/memory" "$zferry" replicate --cache 16M --snapshot one tank/data "$url/data" --plain
  cat "$work/memory"
  [ "$(tr -cd '0-9' <"$work/memory")" -le $(((16 + 32) * 1024)) ] || fail "--cache 16M promises 48 MiB: $(cat "$work/memory")"
  replicated vault/in/data tank/data one
}

run_cases "$@"
