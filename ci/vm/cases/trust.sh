#!/bin/bash
# Who may come, on real ZFS and over real ssh: keys, grants, tickets. What the fast tests say of the stand-in
# (tests/trusted.rs, tests/tickets.rs, tests/ssh.rs) is said here of ZFS.
. "$(dirname "$0")/lib.sh"

# Each host has a key of its own.
server_config=$work/server-config
client_config=$work/client-config
export ZFERRY_CONFIG=$client_config
manner=

keys_of_server() { ZFERRY_CONFIG=$server_config "$zferry" keys "$@"; }
fingerprint() { ZFERRY_CONFIG=$1 "$zferry" keys show | grep -o 'SHA256:[^ ]*' | head -n 1; }

# serve_by_keys [GRANT...]: a server that knows one client, `carrier`, whose root is vault/in.
serve_by_keys() {
  keys_of_server trust client carrier "$(fingerprint "$client_config")" --root vault/in "$@"
  "$zferry" keys trust server "$address:$port" "$(fingerprint "$server_config")"
  (
    trap - ERR
    exec >"$work/server.log" 2>&1
    ZFERRY_CONFIG=$server_config exec "${on_server[@]}" "$zferry" -v serve --listen "$address:$port"
  ) &
  server=$!
  wait_until 20 "the server says that it listens" grep -q "listening on $address:$port" "$work/server.log"
}

read_the_list_again() {
  kill -HUP "$server"
  wait_until 20 "the list is read again" grep -q 'read the list of clients again' "$work/server.log"
}

case_trusted_and_granted() {
  make_small tank/data
  zfs snapshot tank/data@one
  serve_by_keys
  replicate 0 --snapshot one tank/data "$url/made/for/data"
  change_small 1
  zfs snapshot tank/data@two
  replicate 0 --snapshot two --connections 4 --compress zstd:1 tank/data "$url/made/for/data"
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
  replicate_ends 2
  said 'was revoked'
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
  said 'vault/in'
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

# The client's own stream is what zfs makes of a token: it must be of its own job.
case_a_ticket_lets_one_sender_in_once() {
  local ticket=$work/ticket
  make_small tank/data
  zfs snapshot tank/data@one
  (
    trap - ERR
    exec 2>"$work/server.log"
    exec "${on_server[@]}" "$zferry" receive --listen "$address:$port" --ticket-out "$ticket" -- zfs receive -u vault/in/data
  ) &
  server=$!
  wait_until 20 "the ticket" test -s "$ticket"
  [ "$(stat -c %a "$ticket")" = 600 ] || fail "others can read the ticket"
  cp -p "$ticket" "$work/copy"
  run 0 "${on_client[@]}" "$zferry" send --ticket "$ticket" -- zfs send tank/data@one
  server_ends 0
  replicated vault/in/data tank/data one
  # Whoever shows it again finds nobody, or one who does not know it.
  (
    trap - ERR
    exec 2>"$work/server.log"
    exec "${on_server[@]}" "$zferry" receive --listen "$address:$port" --ticket-out "$ticket" -- zfs receive -u vault/in/other
  ) &
  server=$!
  wait_until 20 "another ticket" grep -q "listening on" "$work/server.log"
  run 2 "${on_client[@]}" "$zferry" send --ticket "$work/copy" -- zfs send tank/data@one
  kill -TERM "$server"
  server_ends 2
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

no_attendant() { ! pgrep -f 'zferry attend'; }

start_sshd() {
  local key
  mkdir -p /run/sshd
  for key in host key; do
    ssh-keygen -q -t ed25519 -N '' -f "$work/$key"
  done
  printf '%s\n' "ListenAddress $address:22" "HostKey $work/host" "AuthorizedKeysFile $work/key.pub" 'StrictModes no' \
    'UsePAM no' 'PidFile none' 'PermitRootLogin prohibit-password' >"$work/sshd_config"
  "${on_server[@]}" /usr/sbin/sshd -f "$work/sshd_config"
  # It has gone into the background, in its namespace, where the end of the case finds it.
}

by_ssh() {
  local expected=$1
  shift
  replicate "$expected" --far-command "$zferry" --identity "$work/key" --ssh-option StrictHostKeyChecking=no \
    --ssh-option UserKnownHostsFile=/dev/null --ssh-option LogLevel=ERROR --ssh-option BatchMode=yes "$@"
}

run_cases "$@"
