#!/bin/bash
# Filesystems, full and incremental: what arrives has the guids and the files of the source.
. "$(dirname "$0")/lib.sh"

# Every kind of file that a filesystem can hold, and every kind of change between two snapshots.
first_files() {
  mkdir "$files/bin"
  find /usr/bin -mindepth 1 -maxdepth 1 -size -512k -exec cp -a -t "$files/bin" {} +
  mkdir "$files/share"
  cp -a /usr/share/perl5 /usr/share/python3 /usr/share/iproute2 "$files/share/" 2>/dev/null || true
  cp /usr/bin/bash "$files/bin/bash-in-part"
  cp /usr/bin/bash "$files/bin/bash-cut"
  ln -s bin/env "$files/link"
  ln -s /nowhere "$files/dangling"
  ln "$files/bin/env" "$files/second-env"
  mkfifo "$files/fifo"
  mknod "$files/null" c 1 3
  mkdir -p "$files/empty" "$files/$(printf 'd%.0s' $(seq 200))/deep"
  : >"$files/nothing"
  : >"$files/"$'new\nline'
  : >"$files/übergröße – ☃"
  install -m 4750 -o 1234 -g 4321 /usr/bin/id "$files/setuid"
  truncate -s 40M "$files/sparse"
  dd if=/dev/urandom of="$files/sparse" bs=64k count=3 seek=300 conv=notrunc status=none
  mkdir "$files/many"
  (cd "$files/many" && seq -f 'entry-%g' 1500 | xargs touch)
  python3 - "$files" <<'PYTHON'
import os, sys
files = sys.argv[1]
os.setxattr(f"{files}/setuid", "user.origin", b"zferry")
os.setxattr(f"{files}/nothing", "user.large", os.urandom(20000))
os.setxattr(f"{files}/empty", "trusted.folder", b"\0\1\2")
PYTHON
}

second_files() {
  rm -r "$files/share"
  mv "$files/empty" "$files/renamed"
  mv "$files/bin/env" "$files/bin/moved-env"
  find "$files/bin" -maxdepth 1 -type f -name 'd*' -delete
  echo tail >>"$files/bin/moved-env"
  dd if=/dev/urandom of="$files/bin/bash-in-part" bs=1k count=10 seek=100 conv=notrunc status=none
  truncate -s 1000 "$files/bin/bash-cut"
  fallocate -p -o 19M -l 64K "$files/sparse"
  # Blocks of 1 MiB from here on, beside those of 128 KiB.
  zfs set recordsize=1M tank/data
  mkdir "$files/large"
  find /usr/lib/x86_64-linux-gnu -maxdepth 1 -type f -size +1M -size -8M | sort | head -n 8 | xargs cp -t "$files/large"
}

third_files() {
  rm -r "$files/many"
  mkdir -p "$files/many" "$files/share"
  cp -a /etc/ssh "$files/share/"
  touch -d '2001-02-03 04:05:06.789 UTC' "$files/nothing"
  python3 -c 'import os, sys; os.removexattr(sys.argv[1] + "/setuid", "user.origin")' "$files"
  chown 5:6 "$files/large"
  for file in "$files"/large/*; do
    dd if=/dev/urandom of="$file" bs=4k count=1 seek=200 conv=notrunc status=none
  done
}

fourth_files() {
  rm "$files/link" "$files/fifo" "$files/null"
  ln -s other "$files/link"
  echo "a file now" >"$files/fifo"
  ln "$files/setuid" "$files/null"
  zfs set compression=off tank/data
  cp /usr/bin/python3 "$files/uncompressed"
}

case_full_and_three_incrementals() {
  files=$mnt/files
  zfs create -o mountpoint="$files" -o xattr=sa tank/data
  serve
  first_files
  zfs snapshot tank/data@one
  replicate 0 --snapshot one tank/data "$url/data"
  replicated vault/in/data tank/data one
  second_files
  zfs snapshot tank/data@two
  replicate 0 --snapshot two tank/data "$url/data"
  third_files
  zfs snapshot tank/data@three
  replicate 0 --snapshot three tank/data "$url/data"
  fourth_files
  zfs snapshot tank/data@four
  replicate 0 --snapshot four tank/data "$url/data"
  replicated vault/in/data tank/data one two three four
  no_holds_left
  # Nothing was done with the source.
  has_snapshots tank/data tank/data one two three four
}

case_long_same_again_is_nothing_to_do() {
  make_small tank/data
  zfs snapshot tank/data@one
  serve
  replicate 0 --snapshot one tank/data "$url/data"
  inventory vault >"$work/before"
  replicate 0 --snapshot one tank/data "$url/data"
  said 'nothing to do'
  inventory vault | cmp "$work/before" - || fail "the second run changed the target"
  replicated vault/in/data tank/data one
}

case_long_several_snapshots_in_one_run() {
  make_small tank/data
  serve
  zfs snapshot tank/data@1
  replicate 0 --snapshot 1 tank/data "$url/data"
  for number in 2 3 4 5 6; do
    change_small $number
    zfs snapshot "tank/data@$number"
  done
  replicate 0 --snapshot 5 tank/data "$url/data"
  replicated vault/in/data tank/data 1 2 3 4 5
  replicate 0 --no-snapshot tank/data "$url/data"
  replicated vault/in/data tank/data 1 2 3 4 5 6
  no_holds_left
}

# Not one snapshot before the first run: history that exists at the source arrives too.
case_long_first_run_of_a_dataset_with_history() {
  make_small tank/data
  for number in 1 2 3; do
    change_small $number
    zfs snapshot "tank/data@$number"
  done
  serve
  replicate 0 --no-snapshot tank/data "$url/data"
  exists vault/in/data@3 || fail "the newest snapshot did not arrive"
  same_trees vault/in/data tank/data 3
}

case_long_newest_only_skips_what_is_between() {
  make_small tank/data
  serve
  zfs snapshot tank/data@1
  replicate 0 --snapshot 1 tank/data "$url/data"
  for number in 2 3 4; do
    change_small $number
    zfs snapshot "tank/data@$number"
  done
  replicate 0 --newest-only --no-snapshot tank/data "$url/data"
  replicated vault/in/data tank/data 1 4
}

case_long_takes_a_snapshot_of_its_own() {
  make_small tank/data
  serve
  replicate 0 tank/data "$url/data"
  change_small 1
  # The name has a resolution of a second.
  sleep 1.1
  replicate 0 tank/data "$url/data"
  snapshots tank/data | cut -f 1 >"$work/names"
  [ "$(wc -l <"$work/names")" -eq 2 ] || fail "expected two snapshots at the source: $(paste -sd' ' "$work/names")"
  ! grep -v '^zferry_20[0-9][0-9]' "$work/names" || fail "not named zferry_<UTC time>"
  # shellcheck disable=SC2046 # names without blanks
  replicated vault/in/data tank/data $(cat "$work/names")
}

case_long_name_with_blanks_and_colons() {
  local name='my data: 2024:01 v1.5_x-y'
  make_small "tank/$name"
  serve
  for number in 1 2; do
    change_small $number
    zfs snapshot "tank/$name@at 1${number}:30"
    replicate 0 --snapshot "at 1${number}:30" "tank/$name" "$url/$name"
  done
  replicated "vault/in/$name" "tank/$name" 'at 11:30' 'at 12:30'
  no_holds_left
}

case_local_target() {
  make_small tank/data
  for number in 1 2 3; do
    change_small $number
    zfs snapshot "tank/data@$number"
    [ $number -eq 2 ] || replicate 0 --snapshot $number tank/data vault/copy
  done
  replicated vault/copy tank/data 1 2 3
  no_holds_left
}

case_empty_filesystem_and_empty_change() {
  zfs create tank/empty
  zfs snapshot tank/empty@1
  zfs snapshot tank/empty@2
  serve
  replicate 0 --snapshot 1 tank/empty "$url/empty"
  replicate 0 --snapshot 2 tank/empty "$url/empty"
  has_snapshots vault/in/empty tank/empty 1 2
}

# Bytes, seconds, rate and ratio, for people who keep a log.
case_last_line_has_the_figures() {
  make_small tank/data
  zfs snapshot tank/data@one
  serve
  replicate 0 --snapshot one tank/data "$url/data"
  last_words | grep -E '[0-9].* ?[KMG]?i?B.*[0-9] ?s.*/s.*[0-9]' || fail "no bytes, seconds, rate and ratio: $(last_words)"
}

run_cases "$@"
