#!/bin/bash
# Properties that are taken along: those that are named and granted, as real ZFS sets them, and nothing else.
. "$(dirname "$0")/lib.sh"

export ZFERRY_CONFIG=$client_config
manner=

# is_set DATASET NAME=VALUE...: there, and not by a parent.
is_set() {
  local dataset=$1 expected
  shift
  for expected in "$@"; do
    [ "$(zfs get -Hp -s local -o value "${expected%%=*}" "$dataset")" = "${expected#*=}" ] ||
      fail "${expected%%=*} of $dataset: $(zfs get -Hp -o value,source "${expected%%=*}" "$dataset")"
  done
}

case_named_and_granted_they_arrive() {
  local names=compression,recordsize,quota,com.example:owner
  zfs create -o mountpoint="$mnt/data" -o compression=zstd-3 -o recordsize=64K -o quota=100M -o exec=on tank/data
  zfs set com.example:owner='it is "mine" = yes' com.example:other=x tank/data
  head -c 1M /dev/urandom >"$mnt/data/file"
  zfs snapshot tank/data@one
  serve_by_keys --properties $names
  inventory vault >"$work/before"
  replicate 2 --snapshot one --properties compression,com.example:other tank/data "$url/data"
  said 'the property com.example:other is not granted'
  inventory vault | cmp -s "$work/before" - || fail "the target was changed: $(inventory vault | paste -sd,)"
  replicate 0 --snapshot one --properties $names tank/data "$url/data"
  is_set vault/in/data compression=zstd-3 recordsize=65536 quota=104857600 'com.example:owner=it is "mine" = yes' exec=off readonly=on
  [ "$(property com.example:other vault/in/data)" = - ] || fail "a property came along that was not named"
  # A change comes with the next snapshot; what was set here by hand stays.
  zfs set exec=on com.example:mine=1 vault/in/data
  zfs set compression=lz4 tank/data
  head -c 1M /dev/urandom >"$mnt/data/file"
  zfs snapshot tank/data@two
  replicate 0 --snapshot two --properties $names tank/data "$url/data"
  is_set vault/in/data compression=lz4 recordsize=65536 exec=on com.example:mine=1 readonly=on
  replicated vault/in/data tank/data one two
}

run_cases "$@"
