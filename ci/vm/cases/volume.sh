#!/bin/bash
# Volumes: the same blocks on both sides, for every snapshot.
. "$(dirname "$0")/lib.sh"

case_full_and_incrementals() {
  zfs create -V 32M -o volblocksize=16k tank/volume
  wait_until 20 "a device for tank/volume" test -b /dev/zvol/tank/volume
  disk=/dev/zvol/tank/volume
  serve
  mkfs.ext4 -q "$disk"
  dd if=/dev/urandom of="$disk" bs=1M count=8 seek=20 conv=notrunc,fsync status=none
  zfs snapshot tank/volume@1
  replicate 0 --snapshot 1 tank/volume "$url/volume"
  dd if=/dev/zero of="$disk" bs=1M count=2 seek=21 conv=notrunc,fsync status=none
  dd if=/usr/bin/python3 of="$disk" bs=4k seek=301 conv=notrunc,fsync status=none
  zfs snapshot tank/volume@2
  blkdiscard -o 1M -l 4M "$disk"
  dd if=/dev/urandom of="$disk" bs=512 count=3 seek=7777 conv=notrunc,fsync status=none
  zfs snapshot tank/volume@3
  replicate 0 --snapshot 3 tank/volume "$url/volume"
  has_snapshots vault/in/volume tank/volume 1 2 3
  [ "$(property type vault/in/volume)" = volume ] || fail "vault/in/volume is no volume"
  [ "$(property volsize vault/in/volume)" = "$(property volsize tank/volume)" ] || fail "the volumes differ in size"
  for number in 1 2 3; do
    blocks "tank/volume@$number" >>"$work/source.blocks"
    blocks "vault/in/volume@$number" >>"$work/target.blocks"
  done
  cmp -s "$work/source.blocks" "$work/target.blocks" || fail "the blocks differ: $(differences "$work/source.blocks" "$work/target.blocks")"
  # The three snapshots are not the same by accident.
  [ "$(sort -u "$work/source.blocks" | wc -l)" -eq 3 ] || fail "nothing was changed between the snapshots"
  no_holds_left
}

case_same_again_is_nothing_to_do() {
  zfs create -s -V 16M tank/volume
  wait_until 20 "a device for tank/volume" test -b /dev/zvol/tank/volume
  dd if=/usr/bin/python3 of=/dev/zvol/tank/volume bs=64k conv=notrunc,fsync status=none
  zfs snapshot tank/volume@1
  serve
  replicate 0 --snapshot 1 tank/volume "$url/volume"
  replicate 0 --snapshot 1 tank/volume "$url/volume"
  said 'nothing to do'
  has_snapshots vault/in/volume tank/volume 1
}

run_cases "$@"
