#!/bin/bash
# Encrypted datasets travel raw: the target holds them without ever having had the key.
. "$(dirname "$0")/lib.sh"

case_raw_without_the_key() {
  head -c 32 /dev/urandom >"$work/key"
  make_small tank/secret -o encryption=on -o keyformat=raw -o keylocation="file://$work/key"
  serve
  zfs snapshot tank/secret@1
  replicate 0 --snapshot 1 tank/secret "$url/secret"
  change_small 2
  zfs snapshot tank/secret@2
  change_small 3
  zfs snapshot tank/secret@3
  # Not even the source needs the key for it.
  zfs unmount tank/secret
  zfs unload-key tank/secret
  replicate 0 --snapshot 3 tank/secret "$url/secret"
  has_snapshots vault/in/secret tank/secret 1 2 3
  no_holds_left
  [ "$(property encryption vault/in/secret)" = "$(property encryption tank/secret)" ] ||
    fail "encryption of the target: $(property encryption vault/in/secret)"
  [ "$(property keystatus vault/in/secret)" = unavailable ] || fail "the target has the key"
  ! mount -t zfs -o ro vault/in/secret@3 "$mnt" 2>/dev/null || fail "the target can be read without the key"
  zfs load-key tank/secret
  zfs load-key -L "file://$work/key" vault/in/secret
  same_trees vault/in/secret tank/secret 1 2 3
}

case_raw_and_other_streams_never_mix() {
  local target
  head -c 32 /dev/urandom >"$work/key"
  make_small tank/secret -o encryption=on -o keyformat=raw -o keylocation="file://$work/key"
  zfs create -o encryption=on -o keyformat=raw -o keylocation="file://$work/key" vault/in/locked
  zfs snapshot tank/secret@1
  # What somebody else has sent in clear: it lies in clear, or under another key.
  for target in clear locked/clear; do
    zfs send -L -c tank/secret@1 | zfs receive -s -u -o readonly=on vault/in/$target
  done
  change_small 2
  zfs snapshot tank/secret@2
  serve
  inventory vault >"$work/before"
  replicate 2 --snapshot 2 tank/secret "$url/clear"
  said 'tank/secret is encrypted and is sent raw, but vault/in/clear holds its @1 .* unencrypted'
  said 'zfs rename vault/in/clear vault/in/clear.old'
  zpool history -i vault >"$work/history"
  [ "$(grep -c 'zfs receive' "$work/history")" -eq 2 ] || fail "a receive was started: $(tail -n 1 "$work/history")"
  # Here ZFS alone can know, and it says so before anything is written.
  replicate 2 --snapshot 2 tank/secret "$url/locked/clear"
  said 'raw and other streams do not mix'
  inventory vault | cmp -s "$work/before" - || fail "the target was changed: $(inventory vault | paste -sd,)"
  for target in clear locked/clear; do
    ! has_token vault/in/$target || fail "something was left in $target"
  done
}

run_cases "$@"
