#!/bin/bash
# What must not be done is refused, with the reason, and the target is afterwards what it was before.
. "$(dirname "$0")/lib.sh"

# Remembers the target; unchanged compares.
remember() { inventory vault >"$work/before"; }
unchanged() {
  inventory vault >"$work/after"
  cmp -s "$work/before" "$work/after" || fail "the target was changed: $(differences "$work/before" "$work/after")"
}

# refused [OPTION...] SRC DST: 2 (failed) or 3 (usage): who notices depends on what is wrong.
refused() {
  local status=0
  echo "+ zferry replicate $*"
  timeout -k 10 "$run_limit" "${on_client[@]}" "$zferry" replicate --retry-for 0 "$@" --plain >"$work/out" 2>"$work/err" || status=$?
  cat "$work/out" "$work/err"
  [ "$status" -eq 2 ] || [ "$status" -eq 3 ] || fail "exit status $status for $*: $(last_words)"
  [ -s "$work/err" ] || fail "refused without a reason: $*"
  unchanged
}

case_long_no_common_snapshot() {
  make_small tank/data
  zfs snapshot tank/data@one
  zfs create -o mountpoint="$mnt/other" vault/in/data
  echo precious >"$mnt/other/file"
  zfs snapshot vault/in/data@theirs
  serve
  remember
  replicate 2 --snapshot one tank/data "$url/data"
  said "$(property guid tank/data@one)"
  said "$(property guid vault/in/data@theirs)"
  unchanged
  [ "$(cat "$mnt/other/file")" = precious ] || fail "the file of the target is gone"
}

case_long_target_exists_without_any_snapshot() {
  make_small tank/data
  zfs snapshot tank/data@one
  zfs create -o mountpoint="$mnt/other" vault/in/data
  echo precious >"$mnt/other/file"
  serve
  remember
  replicate 2 --snapshot one tank/data "$url/data"
  unchanged
  [ "$(cat "$mnt/other/file")" = precious ] || fail "the file of the target is gone"
}

case_long_same_name_other_guid() {
  make_small tank/data
  zfs snapshot tank/data@one
  serve
  replicate 0 --snapshot one tank/data "$url/data"
  zfs snapshot vault/in/data@two
  change_small 1
  zfs snapshot tank/data@two
  remember
  replicate 2 --snapshot two tank/data "$url/data"
  unchanged
}

case_long_diverged_by_a_snapshot() {
  make_small tank/data
  zfs snapshot tank/data@one
  serve
  replicate 0 --snapshot one tank/data "$url/data"
  zfs set readonly=off canmount=noauto mountpoint="$mnt/other" vault/in/data
  zfs mount vault/in/data
  echo precious >"$mnt/other/file"
  zfs snapshot vault/in/data@local
  change_small 1
  zfs snapshot tank/data@two
  remember
  replicate 2 --snapshot two tank/data "$url/data"
  said 'local'
  unchanged
  [ "$(cat "$mnt/other/file")" = precious ] || fail "the file of the target is gone"
}

case_diverged_by_a_write() {
  make_small tank/data
  zfs snapshot tank/data@one
  serve
  replicate 0 --snapshot one tank/data "$url/data"
  zfs set readonly=off canmount=noauto mountpoint="$mnt/other" vault/in/data
  zfs mount vault/in/data
  echo precious >"$mnt/other/file"
  sync
  change_small 1
  zfs snapshot tank/data@two
  remember
  replicate 2 --snapshot two tank/data "$url/data"
  said 'modified|written|changed|diverged'
  unchanged
  [ "$(cat "$mnt/other/file")" = precious ] || fail "the file of the target is gone"
}

# The server's root is a wall.
case_outside_the_root() {
  make_small tank/data
  zfs snapshot tank/data@one
  zfs create vault/other
  serve
  remember
  for path in ../out ../other/out a/../../out .. . '' / /vault/out /other/out ../in/../out 'a//b' 'a@one' 'a#b' '%2e%2e/out'; do
    # Below the root these two are ordinary names; they may be refused, but must not lead outside.
    case $path in
      /vault/out | /other/out)
        "${on_client[@]}" timeout "$run_limit" "$zferry" replicate --snapshot one tank/data "$url/$path" --plain >"$work/out" 2>"$work/err" || true
        inventory vault | grep -v '^vault/in' >"$work/after"
        grep -v '^vault/in' "$work/before" | cmp -s - "$work/after" || fail "$url/$path led outside the root"
        remember
        ;;
      *) refused --snapshot one tank/data "$url/$path" ;;
    esac
  done
  # Still well after all this.
  replicate 0 --snapshot one tank/data "$url/data"
  replicated vault/in/data tank/data one
}

case_long_unknown_source() {
  make_small tank/data
  zfs snapshot tank/data@one
  serve
  remember
  replicate 2 tank/missing "$url/data"
  said 'tank/missing'
  unchanged
  replicate 2 --snapshot missing tank/data "$url/data"
  said 'missing'
  unchanged
  zfs create tank/bare
  replicate 2 --no-snapshot tank/bare "$url/bare"
  said 'tank/bare'
  unchanged
  # A failed run leaves no snapshot of its own behind on what it did find, and no hold.
  no_holds_left
}

case_no_server() {
  make_small tank/data
  zfs snapshot tank/data@one
  remember
  replicate 2 --snapshot one tank/data "$url/data"
  said "$address"
  unchanged
  no_holds_left
}

case_usage() {
  run 3 "${on_client[@]}" "$zferry" replicate --plain
  run 3 "${on_client[@]}" "$zferry" replicate --no-such-flag tank/data "$url/data" --plain
  run 3 "${on_client[@]}" "$zferry" replicate --compress lzma tank/data "$url/data" --plain
  run 3 "${on_client[@]}" "$zferry" no-such-command
}

run_cases "$@"
