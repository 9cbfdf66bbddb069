#!/bin/bash
# The power of a host goes off, and the stream itself is in breakpoint files, on a dataset of the host's own pool.
. "$(dirname "$0")/lib.sh"

# Where both sides keep them, before and after a power cut.
spool=/mnt/spool
make_spool() { on "$1" "zfs create -o mountpoint=$spool \$POOL/spool"; }

# The whole stream is there, and a record says so.
is_whole() { on source "zferry_keeps_whole $spool" >/dev/null; }

# The client sends the rest to the same `zfs receive`, and `zfs send` is not run again.
case_long_source() {
  make_spool source
  under_way 24 16mbit --retry-for 10m --spool $spool --spool-when always
  wait_until 120 "the stream is spooled whole" is_whole
  ! client_ended || fail "it was over before anything happened"
  cut_power source
  power_on source
  on target 'pgrep -x zfs' >/dev/null || fail "the server did not wait"
  on source "begin client \$zferry -v replicate --snapshot one --plain --cache 8M --spool $spool --spool-when always \$dataset \$url"
  client_ends 0
  said source 'going on at [0-9.]+ MiB of' client
  [ -z "$(on source "find $spool -type f")" ] || fail "files are left: $(on source "find $spool -type f")"
  on source 'zfs destroy -r $POOL/spool'
  alike one
}

# A package stream, which ZFS cannot resume: it is fed again from the target's own disk, and the sender, which has
# waited, sends the rest.
case_long_target() {
  local before
  make_spool target
  on source 'make_data 24; zfs snapshot $dataset@two; narrow 16mbit'
  on target "start_receiver $spool"
  before=$(on source sent)
  on source 'begin client bash -c "zfs send -R $dataset@two | $zferry send 10.78.0.1:7001 --plain --cache 8M --retry-for 10m"'
  wait_until 120 "the target keeps 12 MiB" target_keeps 12
  cut_power_while_it_writes target
  power_on target
  on target "start_receiver $spool"
  client_ends 0
  said target 'going on with a transfer of which [0-9.]+ MiB are here' server
  note "$((($(on source sent) - before >> 20) - 24)) MiB on the wire more than the data"
  [ $(($(on source sent) - before >> 20)) -lt 34 ] || fail "what was kept crossed the wire again"
  on target "wait_until 60 'the receiver ends' test -e /share/server.ended; zfs destroy -r \$POOL/spool"
  [ "$(cat "$pair/target/share/server.ended")" -eq 0 ] || fail "the receiver ended with $(cat "$pair/target/share/server.ended")"
  for name in one two; do
    [ "$(on source "tree \$dataset@$name")" = "$(on target "tree \$copy@$name")" ] || fail "the files of @$name differ"
  done
}
target_keeps() { [ "$(on target "du -sm $spool | cut -f 1")" -ge "$1" ]; }

run_cases "$@"
