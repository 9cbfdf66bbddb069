#!/bin/bash
# Neither side needs root: `zfs allow` is enough.
. "$(dirname "$0")/lib.sh"

case_delegated_on_both_sides() {
  for user in carrier keeper; do
    getent passwd $user >/dev/null || useradd --create-home $user
  done
  make_small tank/data
  zfs create tank/other
  zfs snapshot tank/other@one
  # `mount` is what ZFS asks for with `snapshot`, `create` and `receive`, although nothing is mounted.
  zfs allow carrier send,snapshot,mount,hold,release,bookmark tank/data
  zfs allow keeper receive,create,mount,hold,release,rollback,readonly,canmount,mountpoint,setuid,devices,exec,volmode vault/in
  as_carrier=("${on_client[@]}" setpriv --reuid carrier --regid carrier --clear-groups env HOME=/home/carrier)
  serve_as keeper --state /home/keeper/state
  [ "$(ps -o user= -p "$server")" = keeper ] || fail "the server runs as $(ps -o user= -p "$server")"
  zfs snapshot tank/data@one
  run 0 "${as_carrier[@]}" "$zferry" replicate --snapshot one tank/data "$url/data" --plain
  change_small 1
  # Takes its own snapshot, too.
  run 0 "${as_carrier[@]}" "$zferry" replicate tank/data "$url/data" --plain
  second=$(snapshots tank/data | cut -f 1 | tail -n 1)
  replicated vault/in/data tank/data one "$second"
  no_holds_left
  # What was not granted is refused by ZFS, and zferry says so.
  inventory vault >"$work/before"
  run 2 "${as_carrier[@]}" "$zferry" replicate --snapshot one tank/other "$url/other" --plain
  said 'permission'
  inventory vault | cmp -s "$work/before" - || fail "the target was changed"
}

run_cases "$@"
