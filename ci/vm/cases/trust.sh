#!/bin/bash
# Who may come, on real ZFS and over real ssh: keys, grants, tickets. What the fast tests say of the stand-in
# (trusted, tickets, ssh and fetch in tests/program) is said here of ZFS.
. "$(dirname "$0")/lib.sh"

export ZFERRY_CONFIG=$client_config
manner=

read_the_list_again() {
  kill -HUP "$server"
  wait_until 20 "the list is read again" grep -q 'read the list of clients again' "$work/server.log"
}

case_long_trusted_and_granted() {
  make_small tank/data
  zfs snapshot tank/data@one
  serve_by_keys
  replicate 0 --snapshot one tank/data "$url/made/for/data"
  change_small 1
  zfs snapshot tank/data@two
  replicate 0 --snapshot two --connections 4 --compress zstd:1 tank/data "zferry://$address/made/for/data"
  replicated vault/in/made/for/data tank/data one two
  no_holds_left
}

case_unknown_and_revoked_keys_are_refused() {
  make_small tank/data
  zfs snapshot tank/data@one
  serve_by_keys
  inventory vault >"$work/before"
  # A key that was made just now.
  ZFERRY_CONFIG=$work/stranger "$zferry" keys trust server "$address:$port" "$(fingerprint "$server_config")"
  ZFERRY_CONFIG=$work/stranger replicate 2 --snapshot one tank/data "$url/data"
  said 'does not trust our key'
  # A server that is not the one that is known.
  "$zferry" keys revoke server "$address:$port"
  "$zferry" keys trust server "$address:$port" "$(fingerprint "$work/stranger")"
  replicate 2 --snapshot one tank/data "$url/data"
  said 'somebody may sit in between'
  "$zferry" keys revoke server "$address:$port"
  "$zferry" keys trust server "$address:$port" "$(fingerprint "$server_config")"
  keys_of_server revoke client carrier
  read_the_list_again
  replicate 2 --snapshot one tank/data "$url/data"
  said 'does not trust our key'
  inventory vault | cmp -s "$work/before" - || fail "the target was changed"
}

case_a_client_that_is_revoked_is_turned_out_in_the_middle() {
  make_heavy tank/data 24
  zfs snapshot tank/data@one
  serve_by_keys
  under_way --snapshot one tank/data "$url/data"
  keys_of_server revoke client carrier
  read_the_list_again
  wait_until 10 "it is turned out at once" has_ended "$client"
  replicate_ends 2
  said 'was revoked'
  ! exists vault/in/data@one || fail "the rest was let in"
  replicate 2 --snapshot one tank/data "$url/data"
  said 'does not trust our key'
}

# Somebody whom both sides take for the other passes on what is said, and speaks for himself where that is of more use.
case_somebody_in_between_is_found_out() {
  local between=7009 middle=$work/middle-config
  make_small tank/data
  zfs snapshot tank/data@one
  zfs create vault/middle
  serve_by_keys
  # He has a key of his own, and would take whatever the client sends.
  ZFERRY_CONFIG=$middle "$zferry" keys trust client victim "$(fingerprint "$client_config")" --root vault/middle
  (
    trap - ERR
    exec >"$work/receive.log" 2>&1
    ZFERRY_CONFIG=$middle exec "${on_server[@]}" "$zferry" -v serve --listen "$address:7010"
  ) &
  wait_until 20 "he listens" grep -q 'listening on' "$work/receive.log"
  "$zferry" keys trust server "$address:$between" "$(fingerprint "$server_config")"
  inventory vault >"$work/before"
  pass_on $between 7010
  replicate 2 --snapshot one tank/data "zferry://$address:$between/data"
  grep -qF "shows the key $(fingerprint "$middle")" "$work/err" || fail "it did not name his key, but: $(last_words)"
  said 'somebody may sit in between'
  inventory vault | cmp -s "$work/before" - || fail "the target was changed"
  ! grep -q 'victim' "$work/receive.log" || fail "the client has said who it is: $(grep -m 1 victim "$work/receive.log")"
  # It was the key: who only passes on bytes is no more than a wire.
  kill "$relay"
  wait "$relay" || true
  pass_on $between "$port"
  replicate 0 --snapshot one tank/data "zferry://$address:$between/data"
  replicated vault/in/data tank/data one
}

# pass_on PORT TO: whatever comes to that port of the server's host; $relay does it.
pass_on() {
  "${on_server[@]}" socat "TCP-LISTEN:$1,bind=$address,reuseaddr,fork" "TCP:$address:$2" &
  relay=$!
  wait_until 20 "socat listens" listens_on "$1"
}

case_nothing_outside_the_root_is_reached() {
  make_small tank/data
  zfs snapshot tank/data@one
  zfs create vault/other
  inventory vault >"$work/before"
  serve_by_keys
  for outside in ../other/data .. /vault/other/data; do
    replicate 3 --snapshot one tank/data "$url/$outside"
  done
  inventory vault | cmp -s "$work/before" - || fail "the target was changed"
  # The root was granted, and not whatever is called so later.
  zfs destroy -r vault/in
  zfs create vault/in
  replicate 2 --snapshot one tank/data "$url/data"
  said 'the dataset that was granted had'
  [ "$(zfs list -H -r -o name vault/in)" = vault/in ] || fail "another root was written to"
}

case_what_is_not_granted_is_refused() {
  make_small tank/data
  zfs snapshot tank/data@one
  serve_by_keys --allow receive-full --raw-only
  replicate 2 --snapshot one tank/data "$url/data"
  said 'raw'
  [ "$(zfs list -H -r -o name vault/in)" = vault/in ] || fail "something was received"
}

case_a_ticket_lets_one_sender_in_once() {
  local ticket=$work/ticket
  make_heavy tank/data 8
  zfs snapshot tank/data@one
  start_receive --ticket-out "$ticket" -- zfs receive -u vault/in/data
  wait_until 20 "the ticket" test -s "$ticket"
  [ "$(stat -c %a "$ticket")" = 600 ] || fail "others can read the ticket"
  cp -p "$ticket" "$work/copy"
  # Whoever shows it again in the middle is not let in, and does no harm to the one who was.
  narrow_link 32mbit
  start_send "$ticket"
  wait_until 60 "zfs receive has 1 MB" receive_has_taken 1000000
  change_link 1mbit 64kb
  run 2 "${on_client[@]}" "$zferry" send --ticket "$work/copy" -- zfs send tank/data@one
  said 'the ticket was used already'
  widen_link
  wait "$sender"
  receive_ends 0
  replicated vault/in/data tank/data one
  # Whoever shows it afterwards finds one who does not know it.
  start_receive --ticket-out "$ticket" -- zfs receive -u vault/in/other
  run 2 "${on_client[@]}" "$zferry" send --ticket "$work/copy" -- zfs send tank/data@one
  said 'somebody may sit in between'
  kill -TERM "$receiver"
  receive_ends 2
  ! exists vault/in/other || fail "an old ticket was let in"
}

# start_send TICKET: tank/data@one, in the background; $sender is its process.
start_send() {
  (
    trap - ERR
    exec >"$work/sender.log" 2>&1
    exec "${on_client[@]}" "$zferry" send --ticket "$1" -- zfs send tank/data@one
  ) &
  sender=$!
}

case_by_ssh_to_a_host_without_a_server() {
  make_small tank/data
  zfs snapshot tank/data@one
  start_sshd
  by_ssh 0 --snapshot one tank/data "root@$address:vault/in/data"
  change_small 1
  zfs snapshot tank/data@two
  by_ssh 0 --snapshot two --via-ssh tank/data "root@$address:vault/in/data"
  replicated vault/in/data tank/data one two
  no_holds_left
  wait_until 20 "nothing is left there" no_attendant
}

# In full; then, over a line that is cut and comes back, what is new; then through ssh.
case_long_by_ssh_from_a_host_without_a_server() {
  make_small tank/data
  zfs snapshot tank/data@one
  start_sshd
  by_ssh 0 --snapshot one "root@$address:tank/data" vault/in/data
  said "root@$address:tank/data@one -> vault/in/data, 1 stream"
  head -c 24M /dev/urandom >"$files/heavy"
  zfs snapshot tank/data@two
  tc -n server qdisc add dev to_client root tbf rate 32mbit burst 64kb latency 400ms
  retry_for=60
  start_by_ssh --snapshot two "root@$address:tank/data" vault/in/data
  wait_until 60 "zfs receive has 2 MB" receive_has_taken 2000000
  # The data alone: ssh is not touched. The kernel tells both ends, and says which it was.
  "${on_client[@]}" ss -K state established "sport != 22 and dport != 22" >"$work/cut"
  [ "$(wc -l <"$work/cut")" -ge 3 ] || fail "nothing was cut: $(cat "$work/cut")"
  tc -n server qdisc del dev to_client root
  replicate_ends 0
  said 'a client came back'
  retry_for=0
  change_small 1
  zfs snapshot tank/data@three
  by_ssh 0 --snapshot three --via-ssh "root@$address:tank/data" vault/in/data
  replicated vault/in/data tank/data one two three
  no_holds_left
  wait_until 20 "nothing is left there" no_attendant
}

case_long_by_ssh_a_copy_that_is_given_up_leaves_nothing_there() {
  make_heavy tank/data 24
  zfs snapshot tank/data@one
  start_sshd
  tc -n server qdisc add dev to_client root tbf rate 32mbit burst 64kb latency 400ms
  start_by_ssh --snapshot one "root@$address:tank/data" vault/in/data
  wait_until 60 "zfs receive has 2 MB" receive_has_taken 2000000
  kill -INT "$client"
  replicate_ends 2
  said 'stopped by a signal'
  wait_until 20 "nothing is left there" no_attendant
  ! pgrep -x zfs || fail "a zfs is left"
  has_token vault/in/data || fail "what had arrived is lost"
  tc -n server qdisc del dev to_client root
  by_ssh 0 --snapshot one "root@$address:tank/data" vault/in/data
  said 'had been sent before'
  replicated vault/in/data tank/data one
  no_holds_left
}

no_attendant() { ! pgrep -f 'zferry (-v )?(attend|deliver)'; }

by_ssh() {
  local expected=$1
  shift
  replicate "$expected" "${by_ssh[@]}" "$@"
}

start_by_ssh() { start_replicate "${by_ssh[@]}" -v "$@"; }

by_ssh=(--far-command "$zferry" --identity "$work/key" --ssh-option StrictHostKeyChecking=no
  --ssh-option UserKnownHostsFile=/dev/null --ssh-option LogLevel=ERROR --ssh-option BatchMode=yes)

run_cases "$@"
