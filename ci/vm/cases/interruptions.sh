#!/bin/bash
# What happens in the middle of a transfer: to the connection, to zferry, to zfs on either side. See resume.sh for
# those that are killed.
. "$(dirname "$0")/lib.sh"

start() {
  make_heavy tank/data 24
  zfs snapshot tank/data@one
  serve
  # The cache is a part of the stream, so that `zfs send` is there to the end.
  under_way --cache 8M --snapshot one tank/data "$url/data"
}

# The server's zfs keeps what has arrived, as a resumable state, and there is no snapshot yet.
partial_state_is_kept() {
  wait_until 60 "vault/in/data has a resume token" has_token vault/in/data
  ! exists vault/in/data@one || fail "a part of the stream became a snapshot"
}

# pid_of WORDS: the one zfs process with these words in its command line.
pid_of() {
  local pids
  pids=$(pgrep -f "^[^ ]*$1 ") || fail "there is no process \`$1\`"
  [ "$(wc -w <<<"$pids")" -eq 1 ] || fail "more than one process \`$1\`: $(pgrep -af "^[^ ]*$1 " | paste -sd';')"
  echo "$pids"
}

# The server goes on as if nothing had been.
server_still_serves() {
  zfs create tank/next
  zfs snapshot tank/next@one
  replicate 0 --snapshot one tank/next "$url/next"
  has_snapshots vault/in/next tank/next one
}

case_source_snapshot_is_held_meanwhile() {
  start
  zferry_holds tank >"$work/meanwhile"
  grep -q '^tank/data@one' "$work/meanwhile" || fail "tank/data@one is not held during the transfer"
  ! zfs destroy tank/data@one 2>/dev/null || fail "tank/data@one could be destroyed during the transfer"
  widen_link
  replicate_ends 0
  no_holds_left
  replicated vault/in/data tank/data one
}

case_long_connection_reset() {
  start
  "${on_server[@]}" ss -K -tn dst 10.77.0.2 >/dev/null
  widen_link
  replicate_ends 2
  partial_state_is_kept
  server_still_serves
}

# Who asks it to stop gets a clean end: no `zfs send` left behind, and the target can go on later.
case_long_client_terminated() {
  start
  kill -TERM "$client"
  widen_link
  replicate_ends 2
  partial_state_is_kept
  ! pgrep -f '^[^ ]*zfs send ' || fail "a zfs send is left"
  server_still_serves
}

case_zfs_send_killed() {
  start
  pid=$(pid_of 'zfs send')
  kill -9 "$pid"
  widen_link
  replicate_ends 2
  said 'zfs send|source'
  partial_state_is_kept
  server_still_serves
}

case_zfs_receive_killed() {
  start
  pid=$(pid_of 'zfs receive')
  kill -9 "$pid"
  widen_link
  replicate_ends 2
  said 'zfs receive|target'
  partial_state_is_kept
  server_still_serves
}

case_server_drains_on_sigterm() {
  start
  kill -TERM "$server"
  sleep 1
  ! has_ended "$server" || fail "the server did not wait for the transfer"
  ! has_ended "$client" || fail "the transfer ended at SIGTERM: $(last_words)"
  widen_link
  replicate_ends 0
  server_ends 0
  replicated vault/in/data tank/data one
  no_holds_left
}

case_second_run_is_told_of_the_first() {
  start
  replicate 4 --snapshot one tank/data "$url/data"
  cp "$work/err" "$work/second"
  widen_link
  replicate_ends 0
  replicated vault/in/data tank/data one
}

# Two datasets at the same time, one server.
case_long_two_transfers_at_once() {
  zfs create tank/small
  zfs snapshot tank/small@one
  start
  run 0 "${on_client[@]}" "$zferry" replicate --snapshot one tank/small "$url/small" --plain
  ! has_ended "$client" || fail "the large transfer ended before the small one: nothing was at once"
  widen_link
  replicate_ends 0
  has_snapshots vault/in/small tank/small one
  replicated vault/in/data tank/data one
}

run_cases "$@"
