#!/bin/bash
# Whole trees on real pools: filesystems, a volume, a clone, an encrypted branch; left out, renamed, pruned.
. "$(dirname "$0")/lib.sh"

# A tree below tank/t: seven datasets, mounted below $mnt/t.
make_tree() {
  local name
  head -c 32 /dev/urandom >"$work/secret"
  zfs create -o mountpoint="$mnt/t" tank/t
  for name in a a/b "z z"; do zfs create "tank/t/$name"; done
  zfs create -s -V 16M tank/t/v
  zfs create -o encryption=on -o keyformat=raw -o keylocation="file://$work/secret" tank/t/e
  zfs create tank/t/e/x
  for name in . a a/b "z z" e e/x; do cp -a /etc/default "$mnt/t/$name/files"; done
  dd if=/usr/bin/python3 of=/dev/zvol/tank/t/v bs=64k conv=notrunc,fsync status=none
  zfs snapshot -r tank/t@one
  # Its name comes before that of its origin.
  zfs clone "tank/t/z z@one" tank/t/a/c
  echo more >"$mnt/t/a/c/more"
  zfs snapshot tank/t/a/c@own
}

all=("" /a /a/b /a/c /e /e/x /v "/z z")

# The whole tree is there, in this folder of the target, with all snapshots of the source.
is_whole() {
  local below names
  for below in "${all[@]}"; do
    mapfile -t names < <(zfs list -H -t snapshot -d 1 -s createtxg -o name "tank/t$below" | sed 's/.*@//')
    has_snapshots "$1$below" "tank/t$below" "${names[@]}"
  done
}

case_everything_below_arrives_and_then_what_is_new() {
  make_tree
  serve
  inventory tank >"$work/tank"
  inventory vault >"$work/vault"
  replicate 0 -n -r tank/t "$url/copies/t"
  said '  source: zfs snapshot -r -- tank/t@zferry_'
  said '  target: zfs create -u -o canmount=off -o mountpoint=none -- vault/in/copies'
  said '  source: zfs send -L -c -w -- tank/t/e/x@one'
  said "  target: zfs receive -s -u -o 'origin=vault/in/copies/t/z z@one' .* -- vault/in/copies/t/a/c"
  inventory tank | cmp -s "$work/tank" - || fail "the source was changed"
  inventory vault | cmp -s "$work/vault" - || fail "the target was changed"
  replicate 0 -r tank/t "$url/copies/t"
  said '\(8 datasets\) -> .*, 16 streams: '
  is_whole vault/in/copies/t
  [ "$(property origin vault/in/copies/t/a/c)" = "vault/in/copies/t/z z@one" ] || fail "the clone is no clone"
  [ "$(property encryption vault/in/copies/t/e/x)" != off ] || fail "the encrypted branch came in clear"
  same_trees "vault/in/copies/t/a/c" tank/t/a/c own
  same_trees "vault/in/copies/t/z z" "tank/t/z z" one
  # What is new, and nothing but that.
  echo new >"$mnt/t/a/b/new"
  replicate 0 -r tank/t "$url/copies/t"
  said ', 8 streams: '
  is_whole vault/in/copies/t
  replicate 0 -r --no-snapshot tank/t "$url/copies/t"
  said 'nothing to do'
  no_holds_left
}

case_long_one_in_trouble_is_named_and_the_others_arrive() {
  make_tree
  zfs set zferry:replicate=off tank/t/e
  serve
  replicate 0 -r --no-snapshot --exclude-dataset v tank/t "$url/t"
  ! exists vault/in/t/e || fail "what its owner does not want copied is there"
  ! exists vault/in/t/v || fail "what was left out is there"
  # Somebody has written to one of them, and one was renamed.
  zfs snapshot vault/in/t/a/b@theirs
  zfs rename "tank/t/z z" tank/t/y
  zfs snapshot -r tank/t@two
  replicate 1 -r --no-snapshot tank/t "$url/t"
  said 'zferry: tank/t/a/b: target: vault/in/t/a/b has gone its own way'
  said "zferry: tank/t/y: .*vault/in/t/z z has snapshots of tank/t/y"
  said "zfs rename 'vault/in/t/z z' vault/in/t/y"
  said '2 of 6 datasets were not copied: '
  has_snapshots vault/in/t/v tank/t/v one two
  zfs rename "vault/in/t/z z" vault/in/t/y
  zfs rollback -r vault/in/t/a/b@one
  replicate 0 -r --no-snapshot tank/t "$url/t"
  has_snapshots vault/in/t/y tank/t/y one two
  no_holds_left
}

case_long_a_tree_by_ssh_in_both_directions_and_pruned_on_both_sides() {
  local keep=(--keep last=1 --keep-target last=1) ssh=(--identity "$work/key" --ssh-option UserKnownHostsFile=/dev/null
    --ssh-option StrictHostKeyChecking=no --far-command "$zferry")
  make_tree
  start_sshd
  replicate 0 -r "${ssh[@]}" "${keep[@]}" tank/t "root@$address:vault/in/pushed"
  replicate 0 -r "${ssh[@]}" "${keep[@]}" tank/t "root@$address:vault/in/pushed"
  said '16 snapshots pruned'
  is_whole vault/in/pushed
  # The server's host has both pools, as far as this test goes.
  replicate 0 -r "${ssh[@]}" --parallel 2 "root@$address:tank/t" vault/in/pulled
  is_whole vault/in/pulled
  no_holds_left
}

run_cases "$@"
