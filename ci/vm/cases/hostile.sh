#!/bin/bash
# A client that sends something else than it announced gets nothing into the pool: `zfs receive` is not even started.
# What an honest one sends is harmless where it lands, whatever it is at home. And a server cannot make a client send
# what was not meant for it.
. "$(dirname "$0")/lib.sh"

# sends_instead WORDS...: from now on the client's host has a `zfs send` that does this, whatever it is asked for.
sends_instead() {
  mkdir -p "$work/bin"
  {
    echo '#!/bin/bash'
    # shellcheck disable=SC2016 # for the script
    echo '[[ $1 != send || " $* " == *" -n"* ]] || exec bash -c "$(tail -n 1 "$0")" "$0" "$@"'
    echo "exec $(command -v zfs) \"\$@\""
    echo 'exit 1'
    echo "$*"
  } >"$work/bin/zfs"
  chmod 755 "$work/bin/zfs"
}

real_zfs=$(command -v zfs)

# turned_away REASON [OPTION...] SRC DST: with the words of the server, and nothing happened on the target.
turned_away() {
  local reason=$1
  shift
  run 2 "${on_client[@]}" env "PATH=$work/bin:$PATH" "$zferry" replicate --retry-for 0 "$@" --plain
  said "was turned away before .zfs receive. was started: .*$reason"
  said 'to mend it: '
  grep -q 'turned a stream away before zfs receive was started' "$work/server.log" || fail "the server's log does not tell"
  inventory vault | cmp -s "$work/before" - || fail "the target was changed: $(inventory vault | paste -sd,)"
  ! something_was_received || fail "zfs receive was run: $(tail -n 1 "$work/history")"
}

# As the pool itself remembers.
something_was_received() {
  # To a file first: a grep that has found something would cut it off.
  zpool history -i vault >"$work/history"
  grep -qiE 'receiv|recv' "$work/history"
}

case_long_other_streams_than_were_announced() {
  make_small tank/data -o setuid=on
  zfs snapshot tank/data@one
  change_small 1
  zfs snapshot tank/data@two
  zfs create tank/other
  zfs snapshot tank/other@one
  zfs create -V 16M tank/volume
  zfs snapshot tank/volume@one
  serve
  inventory vault >"$work/before"
  local send="$real_zfs send" form
  for form in -R -p -b -h; do
    sends_instead "$send $form tank/data@one"
    turned_away 'package stream' --snapshot one tank/data "$url/data"
  done
  sends_instead "$send -I @one tank/data@two"
  turned_away 'package stream' --snapshot one tank/data "$url/data"
  sends_instead "$send -L -c tank/other@one"
  turned_away "guid $(property guid tank/other@one); announced was guid $(property guid tank/data@one)" --snapshot one tank/data "$url/data"
  sends_instead "$send -L -c -i @one tank/data@two"
  turned_away 'guid' --snapshot one tank/data "$url/data"
  sends_instead "$send -L -c tank/volume@one"
  turned_away 'it is of a volume; announced was a filesystem' --snapshot one tank/data "$url/data"
  sends_instead "$send -L -c tank/data@one | tail -c +313"
  turned_away 'does not begin as a stream' --snapshot one tank/data "$url/data"
  sends_instead "head -c 3000000 /dev/urandom"
  turned_away 'does not begin as a stream' --snapshot one tank/data "$url/data"
  sends_instead "$send -L -c tank/data@one | head -c 200"
  turned_away 'it ended after 200 bytes' --snapshot one tank/data "$url/data"
  # By the lane on which nobody looks at a byte otherwise.
  sends_instead "$send -R tank/data@one"
  turned_away 'package stream' --checksum none --snapshot one tank/data "$url/data"
  # An honest client is served as before, by either lane.
  replicate 0 --snapshot one tank/data "$url/data"
  replicate 0 --checksum none --snapshot two tank/data "$url/data"
  replicated vault/in/data tank/data one two
  something_was_received || fail "the pool's history does not tell of what is received"
}

# An honest client refuses such names itself: here it is the server that does.
case_a_client_that_does_not_check_its_names() {
  local name wishes=('{"type":"list","dataset":"data"}')
  zfs create vault/other
  zfs snapshot vault/other@one
  serve
  inventory vault >"$work/before"
  for name in ../other .. data/../../other /vault/other 'data;zfs destroy -r vault/other' data@one ''; do
    wishes+=("{\"type\":\"list\",\"dataset\":\"$name\"}" "{\"type\":\"abort\",\"dataset\":\"$name\",\"token\":\"1-0-0-0\"}")
  done
  run 0 "${on_client[@]}" python3 "$(dirname "$0")/say.py" "$address" "$port" "${wishes[@]}"
  said '"listed","dataset":"vault/in/data"'
  [ "$(grep -c '^{"type":"refused",.*the message is malformed: ' "$work/out")" -eq $((${#wishes[@]} - 1)) ] ||
    fail "not all was refused for what it is: $(grep -v 'the message is malformed: ' "$work/out" | tail -n 1)"
  inventory vault | cmp -s "$work/before" - || fail "the target was changed"
}

# ZFS would look for what a clone is made of in all of the pool, also outside of the root.
case_clones_and_properties_that_were_not_announced_or_not_granted() {
  local to from name wishes=()
  make_small tank/data
  zfs snapshot tank/data@one
  zfs clone -o mountpoint="$mnt/clone" tank/data@one tank/clone
  head -c 1M /dev/urandom >"$mnt/clone/file"
  zfs snapshot tank/clone@two
  zfs create vault/other
  zfs send tank/data@one | zfs receive -u vault/other/data
  zfs send tank/data@one | zfs receive -u vault/in/origin
  serve
  inventory vault >"$work/before"
  to=$(property guid tank/clone@two) from=$(property guid tank/data@one)
  # wish BESIDE: the clone as a client announces it that checks nothing.
  wish() {
    echo '{"type":"open","transfer":1,"request":{"epoch":1,"block_bytes":65536,"codec":"raw","stream":{"kind":"dataset",' \
      "\"target\":\"clone\",\"dataset\":\"filesystem\",\"snapshot\":\"two\",\"to\":$to,\"from\":$from," \
      "\"raw\":false,\"first\":true,$1}}}"
  }
  for name in ../other/data other/data data; do
    wishes+=("$(wish "\"origin\":{\"dataset\":\"$name\",\"snapshot\":\"one\",\"guid\":$from}")")
  done
  wishes+=("$(wish "\"origin\":{\"dataset\":\"origin\",\"snapshot\":\"one\",\"guid\":7}")")
  wishes+=("$(wish '"properties":{"mountpoint":"/etc"}')")
  run 0 "${on_client[@]}" python3 "$(dirname "$0")/say.py" "$address" "$port" "${wishes[@]}"
  said 'the message is malformed: '
  said 'a clone of vault/in/other/data@one was announced, which does not exist'
  said 'a clone of vault/in/data@one was announced, which does not exist'
  said 'builds on another snapshot than its origin'
  said "'mountpoint.* cannot be taken along"
  [ "$(wc -l <"$work/out")" -eq ${#wishes[@]} ] || fail "not all was refused: $(cat "$work/out")"
  # The stream itself, announced as one that builds on nothing.
  sends_instead "$real_zfs send -i tank/data@one tank/clone@two"
  run 2 "${on_client[@]}" env "PATH=$work/bin:$PATH" "$zferry" replicate --retry-for 0 --snapshot two tank/clone "$url/new" --plain
  said 'it makes a clone: .* not announced'
  inventory vault | cmp -s "$work/before" - || fail "the target was changed: $(inventory vault | paste -sd,)"
}

# What was announced as encrypted must not arrive in clear.
case_a_clear_stream_of_an_encrypted_dataset() {
  head -c 32 /dev/urandom >"$work/key"
  make_small tank/secret -o encryption=on -o keyformat=raw -o keylocation="file://$work/key"
  zfs snapshot tank/secret@one
  serve
  inventory vault >"$work/before"
  sends_instead "$real_zfs send -L -c tank/secret@one"
  turned_away 'it is not raw; announced was one that is raw' --snapshot one tank/secret "$url/secret"
}

# is_harmless DATASET
is_harmless() {
  local expected
  for expected in readonly=on canmount=noauto mounted=no setuid=off devices=off exec=off; do
    [ "$(property "${expected%=*}" "$1")" = "${expected#*=}" ] || fail "${expected%=*} of $1: $(property "${expected%=*}" "$1")"
  done
}

case_a_copy_of_etc_is_not_mounted_over_it() {
  zfs create -o canmount=noauto -o mountpoint=/etc tank/etc
  mkdir -p "$mnt/etc"
  mount -t zfs -o zfsutil tank/etc "$mnt/etc"
  echo 'root::0:0:root:/root:/bin/bash' >"$mnt/etc/passwd"
  cp /usr/bin/id "$mnt/etc/id"
  chmod 4755 "$mnt/etc/id"
  umount "$mnt/etc"
  zfs set canmount=on tank/etc
  zfs snapshot tank/etc@one
  zfs snapshot tank/etc@two
  etc_here >"$work/etc"
  serve
  # A client that sends the property along, with a package.
  inventory vault >"$work/before"
  sends_instead "$real_zfs send -p tank/etc@one"
  turned_away 'package stream' --snapshot one tank/etc "$url/etc"
  replicate 0 --snapshot one tank/etc "$url/etc"
  is_harmless vault/in/etc
  [ "$(property mountpoint vault/in/etc)" != /etc ] || fail "the target is for /etc"
  # As at the next boot.
  stop_server
  zfs set canmount=noauto tank/etc
  zpool export vault
  zpool import -d /tmp/pools vault
  zfs mount -a
  [ "$(property mounted vault/in/etc)" = no ] || fail "the target was mounted at boot"
  ! mountpoint -q /etc || fail "something is mounted over /etc"
  # Whoever looks into it all the same finds no way to become root there.
  zfs set mountpoint="$mnt/etc" vault/in/etc
  zfs mount vault/in/etc
  grep -q '^root::' "$mnt/etc/passwd" || fail "the copy is not there"
  ! setpriv --reuid nobody --regid nogroup --clear-groups "$mnt/etc/id" -u || fail "a program of another host runs here"
  etc_here | cmp -s "$work/etc" - || fail "/etc is another one now: $(etc_here | differences "$work/etc" -)"
}

# All files of this host's own /etc, but for what zfs itself writes there.
etc_here() { find /etc -xdev \( -path /etc/zfs -o -path /etc/exports.d \) -prune -o -type f -print0 | sort -z | xargs -0 sha256sum; }

case_what_an_operator_has_changed_stays() {
  make_small tank/data
  zfs snapshot tank/data@one
  serve
  replicate 0 --snapshot one tank/data "$url/data"
  is_harmless vault/in/data
  zfs set setuid=on exec=on canmount=off vault/in/data
  change_small 1
  zfs snapshot tank/data@two
  replicate 0 --snapshot two tank/data "$url/data"
  [ "$(property setuid vault/in/data) $(property exec vault/in/data) $(property canmount vault/in/data)" = 'on on off' ] ||
    fail "the receive has set its properties again"
}

# shows_token TOKEN: from now on the server's host has a `zfs` that shows this as what the target has a part of.
shows_token() {
  mkdir -p "$work/liar"
  {
    echo '#!/bin/bash'
    echo 'set -o pipefail'
    echo "[[ \" \$* \" == *receive_resume_token* ]] || exec $real_zfs \"\$@\""
    # The last of the five columns of a list, or the only one; `-` where nothing was received in part.
    echo "$real_zfs \"\$@\" | awk -F '\t' -v OFS='\t' '(NF == 1 || NF == 5) && \$NF == \"-\" { \$NF = \"$1\" } { print }'"
  } >"$work/liar/zfs"
  chmod 755 "$work/liar/zfs"
}

# token_of_part SNAPSHOT: as ZFS makes it, of a receive of that snapshot that was cut.
token_of_part() {
  "$real_zfs" send "$1" | head -c 2000000 >"$work/part" || true
  ! "$real_zfs" receive -s -u vault/part <"$work/part" 2>/dev/null || fail "a part was taken for the whole"
  token=$(token_of vault/part)
  [ "$token" != - ] || fail "there is no part"
  "$real_zfs" receive -A vault/part
}

# sends_nothing REASON [OPTION...] SRC DST: whatever is to become of a part that cannot be finished.
sends_nothing() {
  local reason=$1 policy before
  shift
  inventory vault >"$work/before"
  for policy in ask abort-and-restart; do
    before=$(bytes_over_wire)
    run 2 "${on_client[@]}" env "PATH=$work/bin:$PATH" "$zferry" replicate --retry-for 0 --on-dead-token $policy "$@" --plain
    said "$reason"
    [ ! -e "$work/sent" ] || fail "zfs send was run: $(cat "$work/sent")"
    [ $(($(bytes_over_wire) - before)) -lt 100000 ] || fail "$(($(bytes_over_wire) - before)) bytes were sent"
    inventory vault | cmp -s "$work/before" - || fail "the target was changed: $(inventory vault | paste -sd,)"
  done
}

case_a_token_cannot_make_a_client_send_something_else() {
  local token
  head -c 32 /dev/urandom >"$work/key"
  make_small tank/data
  zfs snapshot tank/data@one
  make_heavy tank/secret 4 -o encryption=on -o keyformat=raw -o keylocation="file://$work/key"
  zfs snapshot tank/secret@one
  zfs create vault/in/data
  zfs create vault/in/secret
  # Whatever it is asked to send, it says so and does it.
  sends_instead "echo \"\$*\" >>$work/sent; exec $real_zfs \"\$@\""
  # A dataset that nobody has asked for.
  token_of_part tank/secret@one
  shows_token "$token"
  PATH=$work/liar:$PATH serve
  sends_nothing "belongs to tank/secret@one \(guid $(property guid tank/secret@one)\), not to tank/data" \
    --snapshot one tank/data "$url/data"
  # The one that was asked for, in clear.
  sends_nothing 'not raw, but tank/secret is encrypted and never leaves this host in clear' --snapshot one tank/secret "$url/secret"
  # Whatever this is.
  shows_token 1-0-0-0
  sends_nothing 'resume token cannot be read' --snapshot one tank/data "$url/data"
  # What an honest server says leads to a copy.
  stop_server
  serve
  zfs destroy vault/in/data
  replicate 0 --snapshot one tank/data "$url/data"
  replicated vault/in/data tank/data one
}

# What is in a volume may be a disk that this host would take for its own.
case_nobody_looks_into_a_volume() {
  zfs create -V 16M tank/volume
  wait_until 20 "a device for tank/volume" test -b /dev/zvol/tank/volume
  mkfs.ext4 -q -L hostile /dev/zvol/tank/volume
  zfs snapshot tank/volume@one
  serve
  replicate 0 --snapshot one tank/volume "$url/volume"
  udevadm settle || true
  [ ! -e /dev/zvol/vault/in/volume ] || fail "there is a device for it"
  [ "$(property volmode vault/in/volume) $(property readonly vault/in/volume)" = 'none on' ] ||
    fail "volmode $(property volmode vault/in/volume), readonly $(property readonly vault/in/volume)"
}

run_cases "$@"
