#!/bin/bash
# Neither side needs root: what docs/least-privilege.md grants is enough, nothing of it is too much, and `zferry doctor`
# tells what is missing.
. "$(dirname "$0")/lib.sh"

# Two users, each with what one side needs: carrier on tank/data, keeper on vault/in, who serves.
delegate() {
  for user in carrier keeper; do
    getent passwd $user >/dev/null || useradd --create-home $user
  done
  for_source=$(granted_on tank/data)
  for_target=$(granted_on backup/hosts)
  make_small tank/data
  zfs allow -u carrier "$for_source" tank/data
  zfs allow -u keeper "$for_target" vault/in
  as_carrier=("${on_client[@]}" setpriv --reuid carrier --regid carrier --clear-groups env HOME=/home/carrier)
  as_keeper=("${on_server[@]}" setpriv --reuid keeper --regid keeper --clear-groups env HOME=/home/keeper)
  serve_as keeper --state /home/keeper/state
}

# carry EXPECTED TARGET [OPTION...]: $from, by carrier.
from=tank/data
carry() {
  local expected=$1 target=$2
  shift 2
  run "$expected" "${as_carrier[@]}" "$zferry" replicate --retry-for 0 "$@" "$from" "$url/$target" --plain
}

# tells_and_mends EXPECTED USER WORD DATASET COMMAND...: the doctor names what that user lacks, with the line that grants
# it, which is then typed.
tells_and_mends() {
  local expected=$1 user=$2 word=$3 dataset=$4 remedy
  shift 4
  run "$expected" "$@"
  said "$user lacks $word on $dataset"
  remedy=$(sed -n 's/^ *to mend it: sudo //p' "$work/out" | grep ' allow ')
  [ "$remedy" = "zfs allow -u $user $word $dataset" ] || fail "to mend it, it says: $remedy"
  $remedy
}

case_long_delegated_on_both_sides() {
  delegate
  [ "$(ps -o user= -p "$server")" = keeper ] || fail "the server runs as $(ps -o user= -p "$server")"
  run 0 "${as_carrier[@]}" "$zferry" doctor --source tank/data
  said 'carrier has send'
  run 0 "${as_keeper[@]}" "$zferry" doctor --target vault/in
  said 'keeper has receive'
  zfs snapshot tank/data@one
  carry 0 data --snapshot one
  change_small 1
  # Takes its own snapshot, too.
  carry 0 data
  second=$(snapshots tank/data | cut -f 1 | tail -n 1)
  replicated vault/in/data tank/data one "$second"
  # Properties that may not be set are no failure to `zfs receive`.
  for expected in readonly=on canmount=noauto setuid=off devices=off exec=off; do
    [ "$(property "${expected%=*}" vault/in/data)" = "${expected#*=}" ] || fail "${expected%=*} of the target is not ${expected#*=}"
  done
  ! grep -q 'zfs receive complained' "$work/server.log" || fail "zfs receive complained"
  no_holds_left
  # What was not granted is refused by ZFS, and zferry says so.
  zfs create tank/other
  zfs snapshot tank/other@one
  inventory vault >"$work/before"
  run 2 "${as_carrier[@]}" "$zferry" replicate --snapshot one tank/other "$url/other" --plain
  said 'permission'
  inventory vault | cmp -s "$work/before" - || fail "the target was changed"
}

# Without any one of them something is amiss, so none is granted for nothing.
case_long_each_grant_on_the_source_is_needed() {
  delegate
  zfs snapshot tank/data@one
  for word in ${for_source//,/ }; do
    zfs unallow -u carrier "$word" tank/data
    case $word in
      send | hold)
        carry 2 "$word" --snapshot one
        said 'permission denied'
        judged=2
        ;;
      release)
        carry 0 "$word" --snapshot one
        said 'a hold stays'
        judged=0
        ;;
      snapshot)
        carry 2 "$word"
        said 'permission denied'
        carry 0 "$word" --no-snapshot
        judged=0
        ;;
      *) fail "no case for $word" ;;
    esac
    tells_and_mends "$judged" carrier "$word" tank/data "${as_carrier[@]}" "$zferry" doctor --source tank/data
  done
  carry 0 all
  # What the runs that failed have left.
  zfs unallow -u carrier tank/data
  zfs allow -u carrier release tank/data
  run 0 "${as_carrier[@]}" "$zferry" status --release tank/data
  no_holds_left
}

case_long_each_grant_on_the_target_is_needed() {
  delegate
  zfs snapshot tank/data@one
  zfs create -V 16M tank/volume
  zfs allow -u carrier "$for_source" tank/volume
  zfs snapshot tank/volume@one
  for word in ${for_target//,/ }; do
    zfs unallow -u keeper "$word" vault/in
    case $word in
      receive | create | mount)
        carry 2 "$word" --snapshot one
        said 'permission denied'
        judged=2
        ;;
      canmount | mountpoint)
        carry 2 "made/for/$word" --snapshot one
        said 'permission denied'
        judged=2
        ;;
      readonly)
        carry 0 "$word" --snapshot one
        [ "$(property readonly "vault/in/$word")" = off ] || fail "it is read-only without the grant"
        judged=0
        ;;
      setuid | devices | exec)
        carry 0 "$word" --snapshot one
        [ "$(property "$word" "vault/in/$word")" = on ] || fail "it is off without the grant"
        judged=0
        ;;
      volmode)
        from=tank/volume carry 0 "$word" --snapshot one
        [ "$(property "$word" "vault/in/$word")" = default ] || fail "it has no device without the grant"
        judged=0
        ;;
      *) fail "no case for $word" ;;
    esac
    tells_and_mends "$judged" keeper "$word" vault/in "${as_keeper[@]}" "$zferry" doctor --target vault/in
  done
  carry 0 made/for/all --snapshot one
  [ "$(property readonly vault/in/made/for/all)" = on ] || fail "the target may be changed"
  from=tank/volume carry 0 volume --snapshot one
  [ "$(property volmode vault/in/volume) $(property readonly vault/in/volume)" = 'none on' ] || fail "the volume is not harmless"
  has_snapshots vault/in/volume tank/volume one
}

# What the page says of the rest.
case_more_than_copies() {
  delegate
  # An encrypted dataset, which is sent raw, needs no more than any other.
  head -c 32 /dev/urandom >"$work/key"
  zfs create -o encryption=on -o keyformat=raw -o keylocation="file://$work/key" tank/secret
  zfs snapshot tank/secret@one
  zfs allow -u carrier "$for_source" tank/secret
  run 0 "${as_carrier[@]}" "$zferry" replicate --snapshot one tank/secret "$url/secret" --plain
  has_snapshots vault/in/secret tank/secret one
  # Between pipes, each side needs what its command needs.
  zfs snapshot tank/data@one
  zfs unallow -u carrier tank/data
  zfs unallow -u keeper vault/in
  zfs allow -u carrier send tank/data
  zfs allow -u keeper receive,create,mount vault/in
  "${as_keeper[@]}" "$zferry" receive --listen "$address:7002" --plain -- zfs receive -s -u vault/in/piped >"$work/receive.log" 2>&1 &
  receiver=$!
  wait_until 20 "it listens" grep -q 'listening on' "$work/receive.log"
  run 0 "${as_carrier[@]}" "$zferry" send "$address:7002" --plain -- zfs send tank/data@one
  wait "$receiver"
  has_snapshots vault/in/piped tank/data one
  "${as_carrier[@]}" zfs send tank/data@one | head -c 300000 >"$work/part" || true
  # To give up a part of a snapshot needs `destroy`.
  ! "${as_keeper[@]}" zfs receive -s -u vault/in/part <"$work/part" || fail "a part was taken for the whole"
  has_token vault/in/part || fail "there is no part"
  ! "${as_keeper[@]}" zfs receive -A vault/in/part || fail "it was given up without a grant"
  zfs allow -u keeper destroy vault/in
  "${as_keeper[@]}" zfs receive -A vault/in/part
}

run_cases "$@"
