#!/bin/bash
# The main job, on real input: a filesystem with real files goes from one pool to another, first whole and then what
# has changed, through `zferry serve` and `zferry replicate`, which know each other by their keys and speak TLS; afterwards
# both sides are listed and compared. ci/demo
# runs this on a host with ZFS, or in the guest of ci/vm/run. Its pools stand on files in a folder of its own and are
# gone when it ends; it must never touch another pool, and it stops if there is one with its names.
#
#   ZFERRY   the binary (default /host/zferry)
#   INPUT    the folders to fill the filesystem with (default: /usr/bin /usr/share)
set -euo pipefail

zferry=${ZFERRY:-/host/zferry}
input=${INPUT:-/usr/bin /usr/share}
cases=$(cd "$(dirname "$0")" && pwd)
source_pool=zferry_demo_source
target_pool=zferry_demo_target

say() { printf '\n=== %s\n' "$*"; }
show() {
  echo "\$ ${*/#$zferry/zferry}"
  "$@"
}
# here COMMAND..., there COMMAND...: as the host beside the source, as the one beside the target. Each has a key of its own.
here() { ZFERRY_CONFIG=$work/here "$@"; }
there() { ZFERRY_CONFIG=$work/there "$@"; }

for pool in $source_pool $target_pool; do
  if zpool list -H "$pool" >/dev/null 2>&1; then
    echo "demo: there is a pool $pool already; if a demo left it behind: zpool destroy $pool" >&2
    exit 1
  fi
done

work=$(mktemp -d "${TMPDIR:-/var/tmp}/zferry-demo.XXXXXX")
server=
made=()
clean_up() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  [ -z "$server" ] || wait "$server" 2>/dev/null || true
  for pool in "${made[@]}"; do
    zpool destroy -f "$pool" || true
  done
  rm -rf --one-file-system "$work"
}
trap clean_up EXIT

say "two pools on files, and a filesystem with copies of $input"
for pool in $source_pool $target_pool; do
  truncate -s 8G "$work/$pool"
  zpool create -o ashift=12 -o cachefile=none -O mountpoint=none -O compression=lz4 $pool "$work/$pool"
  made+=("$pool")
done
zfs create -o mountpoint="$work/files" $source_pool/data
zfs create $target_pool/backup
# shellcheck disable=SC2086 # several folders
cp -a $input "$work/files/"
zfs snapshot $source_pool/data@monday

say "the server's side: who may send here, and below which dataset"
key=$(here "$zferry" keys show | grep -o 'SHA256:[^ ]*' | head -n 1)
show there "$zferry" keys trust client laptop "$key" --root $target_pool/backup

say "the server, resident beside the target pool"
# Port 0: whichever is free here. The server says which one it got.
echo "\$ zferry serve --listen 127.0.0.1:0 &"
ZFERRY_CONFIG=$work/there "$zferry" serve --listen 127.0.0.1:0 2>"$work/server.log" &
server=$!
listen=
for _ in $(seq 100); do
  listen=$(sed -n 's/.*listening on //p' "$work/server.log")
  [ -z "$listen" ] || break
  sleep 0.1
done
cat "$work/server.log"
[ -n "$listen" ] || { echo "demo: the server does not listen" >&2; exit 1; }

say "the client's side: the key that the server must have"
key=$(there "$zferry" keys show | grep -o 'SHA256:[^ ]*' | head -n 1)
show here "$zferry" keys trust server "$listen" "$key"

say "the first copy: everything"
show here "$zferry" replicate --snapshot monday $source_pool/data "zferry://$listen/data"

say "a day's work: something new, something changed, something gone"
mkdir "$work/files/new"
find $input -type f -size +100k 2>/dev/null | sort | head -n 100 | xargs cp -t "$work/files/new" 2>/dev/null || true
find "$work/files" -type f -name 'b*' | sort | head -n 20 | xargs rm
find "$work/files" -type f -name 's*' -size +64k | sort | head -n 50 | while IFS= read -r file; do
  printf 'changed' | dd of="$file" bs=1 seek=4096 conv=notrunc status=none
done
zfs snapshot $source_pool/data@tuesday

say "the second copy: only what has changed"
show here "$zferry" replicate --snapshot tuesday $source_pool/data "zferry://$listen/data"

say "the third: there is nothing to do"
show here "$zferry" replicate --snapshot tuesday $source_pool/data "zferry://$listen/data"

say "both sides"
show zfs list -r -t filesystem,snapshot -o name,used,refer,guid $source_pool
echo
show zfs list -r -t filesystem,snapshot -o name,used,refer,guid $target_pool

say "are they the same?"
for snapshot in monday tuesday; do
  folders=()
  for side in $source_pool/data $target_pool/backup/data; do
    folders+=("$work/look/$side")
    mkdir -p "$work/look/$side"
    mount -t zfs -o ro "$side@$snapshot" "$work/look/$side"
  done
  printf '@%s: ' "$snapshot"
  python3 "$cases/compare.py" "${folders[@]}"
  umount "${folders[@]}"
done

say "the server ends when it is asked to"
kill -TERM "$server"
wait "$server"
server=
echo "done"
