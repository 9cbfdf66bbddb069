#!/bin/bash
# Copies that were cut off go on from ZFS's resume token: what the target has is not sent again, and in the end both
# sides are the same, nothing is held, no part is left and the target pool is sound. Those named case_long_* are run by
# ci/soak.
. "$(dirname "$0")/lib.sh"

target=vault/in/data

# The rest of a transfer that is under way would take minutes: whatever cuts it has the time.
under_way_to() { under_way --cache 8M --snapshot "$1" tank/data "$url/data"; }

# A filesystem of 24 MB; its only snapshot @one is under way to the target.
first_half() {
  make_heavy tank/data 24
  zfs snapshot tank/data@one
  serve
  under_way_to one
}

# second_half [OPTION...]: a filesystem with @one on both sides and 24 MB more in @two, which is under way.
second_half() {
  make_heavy tank/data 1 "$@"
  zfs snapshot tank/data@one
  serve
  replicate 0 --snapshot one tank/data "$url/data"
  head -c 24M /dev/urandom >"$files/more"
  zfs snapshot tank/data@two
  under_way_to two
}

kill_client() {
  kill -9 "$client"
  wait "$client" || true
  widen_link
  part_is_kept
}

kill_server() {
  kill -9 "$server"
  widen_link
  server_ends 137
  replicate_ends 2
  part_is_kept
}

# From here on the token stays as it is: a server that waits for its client still feeds what had arrived.
part_settles() {
  stop_server
  part_is_kept
  serve
}

part_is_kept() { wait_until 60 "$target has a resume token" has_token $target; }

# goes_on [OPTION...]: the next run finishes what was begun, and does not begin it again.
goes_on() {
  local before
  before=$(bytes_over_wire)
  retry_for=60
  replicate 0 "$@" tank/data "$url/data"
  retry_for=0
  said 'had been sent before'
  [ $(($(bytes_over_wire) - before)) -lt 24000000 ] || fail "the whole snapshot was sent again"
}

# nothing_left: of how the snapshots came to the target.
nothing_left() {
  no_holds_left
  ! has_token $target || fail "$target still has a part of a snapshot"
  ! zfs list $target/%recv >/dev/null 2>&1 || fail "$target still has a hidden clone"
  zpool scrub -w vault
  zpool status -x vault | grep -q 'is healthy' || fail "vault is not sound: $(zpool status -x vault | paste -sd' ')"
}

# alike NAME...: the target has exactly these snapshots, with all files.
alike() {
  replicated $target tank/data "$@"
  nothing_left
}

# release_by_force NAME: as an operator would who wants to be rid of a snapshot.
release_by_force() {
  local tag
  zferry_holds tank | cut -f 2 | sort -u >"$work/tags"
  while IFS= read -r tag; do
    zfs release "$tag" "tank/data@$1" 2>/dev/null || true
  done <"$work/tags"
}

case_long_full_after_client_killed() {
  first_half
  kill_client
  goes_on --snapshot one
  alike one
  # What was asked for at first holds for what came at last.
  [ "$(property readonly $target)" = on ] || fail "$target is not read-only"
  [ "$(property canmount $target)" = noauto ] || fail "$target could be mounted at boot"
}

case_full_after_server_killed() {
  first_half
  kill_server
  serve
  goes_on --snapshot one
  alike one
}

case_long_incremental_after_client_killed() {
  second_half
  kill_client
  goes_on --snapshot two
  alike one two
}

case_long_incremental_after_server_killed() {
  second_half
  kill_server
  serve
  goes_on --snapshot two
  alike one two
}

# The rest of the interrupted snapshot, and then the two that were made since.
case_long_goes_on_to_the_newest() {
  second_half
  kill_client
  head -c 1M /dev/urandom >"$files/third"
  zfs snapshot tank/data@three
  rm "$files/more"
  zfs snapshot tank/data@four
  goes_on --no-snapshot
  alike one two three four
}

case_one_run_rides_through() {
  make_heavy tank/data 24
  zfs snapshot tank/data@one
  serve
  retry_for=60
  under_way_to one
  pkill -9 -f '^[^ ]*zfs receive ' || fail "there is no zfs receive"
  widen_link
  replicate_ends 0
  said 'tried again'
  said 'had been sent before'
  alike one
}

case_long_volume() {
  local number
  zfs create -V 32M -o volblocksize=16k tank/data
  wait_until 20 "a device for tank/data" test -b /dev/zvol/tank/data
  dd if=/dev/urandom of=/dev/zvol/tank/data bs=1M count=24 conv=notrunc,fsync status=none
  zfs snapshot tank/data@one
  serve
  under_way_to one
  kill_client
  goes_on --snapshot one
  dd if=/dev/urandom of=/dev/zvol/tank/data bs=1M count=16 seek=4 conv=notrunc,fsync status=none
  zfs snapshot tank/data@two
  tc -n client qdisc del dev to_server root
  under_way_to two
  kill_client
  goes_on --snapshot two
  has_snapshots $target tank/data one two
  for number in one two; do
    blocks "tank/data@$number" >>"$work/source.blocks"
    blocks "$target@$number" >>"$work/target.blocks"
  done
  cmp -s "$work/source.blocks" "$work/target.blocks" || fail "the blocks differ"
  nothing_left
}

case_long_encrypted_goes_on_raw() {
  head -c 32 /dev/urandom >"$work/key"
  second_half -o encryption=on -o keyformat=raw -o keylocation="file://$work/key"
  kill_client
  zfs unmount tank/data
  zfs unload-key tank/data
  goes_on --snapshot two
  [ "$(property keystatus $target)" = unavailable ] || fail "the target has the key"
  zfs load-key tank/data
  zfs load-key -L "file://$work/key" $target
  alike one two
}

case_long_renamed_snapshot() {
  second_half
  kill_client
  zfs rename tank/data@two tank/data@kept
  goes_on --snapshot kept
  alike one kept
}

case_long_base_is_gone_but_its_bookmark_is_there() {
  second_half
  kill_client
  zfs bookmark tank/data@one 'tank/data#one'
  release_by_force one
  zfs destroy tank/data@one
  goes_on --snapshot two
  [ "$(snapshots $target | cut -f 1 | paste -sd' ')" = "one two" ] || fail "snapshots: $(snapshots $target)"
  same_trees $target tank/data two
  nothing_left
}

case_long_snapshot_is_gone_and_nobody_says_what_to_do() {
  local token
  second_half
  kill_client
  part_settles
  token=$(token_of $target)
  release_by_force two
  zfs destroy tank/data@two
  zfs snapshot tank/data@three
  replicate 2 --snapshot three tank/data "$url/data"
  said 'no longer exists on the source'
  said "zfs receive -A $target"
  [ "$(token_of $target)" = "$token" ] || fail "the part was touched"
  # The command that was shown is the way out.
  zfs receive -A $target
  replicate 0 --snapshot three tank/data "$url/data"
  alike one three
}

case_long_snapshot_is_gone_and_its_part_may_be_given_up() {
  second_half
  kill_client
  release_by_force two
  zfs destroy tank/data@two
  zfs snapshot tank/data@three
  replicate 0 --on-dead-token abort-and-restart --snapshot three tank/data "$url/data"
  said 'it is given up'
  alike one three
}

case_long_first_snapshot_is_gone_and_its_part_may_be_given_up() {
  first_half
  kill_client
  release_by_force one
  zfs destroy tank/data@one
  zfs snapshot tank/data@two
  replicate 0 --on-dead-token abort-and-restart --snapshot two tank/data "$url/data"
  alike two
  [ "$(property readonly $target)" = on ] || fail "$target is not read-only"
}

case_long_part_of_another_dataset_is_left_alone() {
  local token
  first_half
  kill_client
  part_settles
  token=$(token_of $target)
  zfs create tank/other
  zfs snapshot tank/other@one
  for policy in ask abort-and-restart; do
    replicate 2 --on-dead-token $policy --snapshot one tank/other "$url/data"
    said "belongs to tank/data@one .*not to tank/other"
    [ "$(token_of $target)" = "$token" ] || fail "the part was touched"
  done
  goes_on --snapshot one
  alike one
}

case_long_target_gained_a_snapshot() {
  second_half
  kill_client
  zfs snapshot $target@theirs
  replicate 2 --snapshot two tank/data "$url/data"
  said 'newest snapshot of the target is @theirs'
  zfs destroy $target@theirs
  goes_on --snapshot two
  alike one two
}

# ZFS notices only after the whole rest, keeps the part, and goes on from there when the change is undone.
case_long_target_was_modified() {
  second_half
  kill_client
  zfs set readonly=off canmount=noauto mountpoint="$mnt/changed" $target
  zfs mount $target
  echo changed >"$mnt/changed/file"
  zfs unmount $target
  zfs set readonly=on $target
  replicate 2 --snapshot two tank/data "$url/data"
  said 'modified'
  part_is_kept
  zfs rollback $target@one
  replicate 0 --snapshot two tank/data "$url/data"
  alike one two
}

# stops_for_want_of_space WORDS: and keeps what it has.
stops_for_want_of_space() {
  make_heavy tank/data 24
  zfs snapshot tank/data@one
  serve
  replicate 2 --snapshot one tank/data "$url/data"
  said "$1"
  part_is_kept
}

case_long_target_pool_is_full_and_then_is_not() {
  zfs create -o reservation=$(($(property available vault) - 12 * 1024 * 1024)) vault/filler
  stops_for_want_of_space 'out of space'
  zfs set reservation=none vault/filler
  goes_on --snapshot one
  alike one
}

case_long_target_quota_is_reached_and_then_raised() {
  zfs set quota=12M vault/in
  stops_for_want_of_space 'quota'
  zfs set quota=none vault/in
  goes_on --snapshot one
  alike one
}

case_orphans_are_listed_and_released() {
  first_half
  kill_client
  run 0 "$zferry" status --orphans
  said "tank/data@one is held for $url/data since 20[0-9-]*T"
  said "$target has .* of tank/data@one"
  zfs hold theirs tank/data@one
  run 0 "$zferry" status --release tank/data
  said 'released: tank/data@one'
  no_holds_left
  zfs release theirs tank/data@one || fail "the hold of somebody else is gone"
}

run_cases "$@"
