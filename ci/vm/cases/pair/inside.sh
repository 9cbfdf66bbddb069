# shellcheck shell=bash
# What a command in a guest of ci/vm/pair can call.
. "/host/cases/lib.sh"

work=/run/pair
mkdir -p $work

dataset=tank/data
copy=vault/in/data
url=zferry://10.78.0.1:7001/data

make_pool() {
  zpool create -f -o ashift=12 -O mountpoint=none -O atime=off "$POOL" /dev/vdb
  [ "$POOL" != vault ] || zfs create vault/in
}

# As if nothing had ever been.
fresh() {
  pkill -KILL -x zferry
  pkill -KILL -x zfs
  tc qdisc del dev eth0 root 2>/dev/null
  ip link set eth0 up
  wait_until 60 "the pool is free" zpool destroy -f "$POOL"
  make_pool
  rm -f /share/*.log /share/*.ended
} 2>/dev/null

# begin NAME COMMAND...: in the background; what it says is in NAME.log, its end in NAME.ended.
begin() {
  local name=$1
  shift
  rm -f "/share/$name.ended"
  # shellcheck disable=SC2016 # for the inner shell
  setsid bash -c 'name=$1; shift; "$@" >>"/share/$name.log" 2>&1; echo $? >"/share/$name.new"; mv "/share/$name.new" "/share/$name.ended"' - "$name" "$@" &
}

listens() { [ -n "$(ss -Hltn 'sport = :7001')" ]; }
start_server() {
  begin server "$zferry" -v serve --listen 0.0.0.0:7001 --root vault/in --plain "$@"
  wait_until 30 "the server listens" listens
}

# start_client [OPTION...]
start_client() { begin client "$zferry" -v replicate --snapshot "${snapshot:-one}" --plain --cache 8M "$@" $dataset $url; }

# narrow RATE: so that a case has time to interfere.
narrow() {
  tc qdisc replace dev eth0 root handle 1: tbf rate "$1" burst 64kb latency 400ms
  tc qdisc replace dev eth0 parent 1: handle 10: sfq
}

# make_data MIB: random bytes and some real files, as tank/data@one.
make_data() {
  zfs create -o mountpoint=/mnt/data $dataset
  cp -a /etc /mnt/data/etc
  head -c "$1M" /dev/urandom >/mnt/data/heavy
  zfs snapshot $dataset@one
}

# tree SNAPSHOT: a hash over everything of its files that a replica must preserve.
tree() {
  mkdir -p /run/look
  mount -t zfs -o ro "$1" /run/look
  tar --create --sort=name --xattrs --acls --numeric-owner -C /run/look . 2>/dev/null | sha256sum
  umount /run/look
}

# On which line: `zfs send`, `zfs receive`.
pid_of() { pgrep -f "^[^ ]*$1 "; }

has_no_zfs() { ! pgrep -x zfs; }

sent() { cat /sys/class/net/eth0/statistics/tx_bytes; }

# What a copy that is over must not leave behind.
leftovers() {
  zferry_holds "$POOL" | sed 's/^/hold: /'
  [ "$POOL" != vault ] || ! has_token $copy || echo "partial state of $copy"
  ! zfs list $copy/%recv >/dev/null 2>&1 || echo "hidden clone of $copy"
  pgrep -ax zfs | sed 's/^/process: /'
  pgrep -ax zferry | sed 's/^/process: /'
  ss -Htn state established '( sport = :7001 or dport = :7001 )' | sed 's/^/connection: /'
  find /tmp /var/tmp /dev/shm /root /var/lib -xdev -type f -newer /run/began | sed 's/^/file: /'
  zpool scrub -w "$POOL"
  zpool status -x "$POOL" | grep -q 'is healthy' || zpool status "$POOL"
}

# zferry_keeps_whole DIR: a client's stream is there from its first byte to its last.
zferry_keeps_whole() {
  "$zferry" status --state "$1" --json | grep -q '"state": *"ended"'
}

# start_receiver DIR: takes a package stream, and keeps what it takes there.
start_receiver() {
  begin server "$zferry" -v receive --listen 0.0.0.0:7001 --plain --spool "$1" --cache 8M -- zfs receive -u -F "$copy"
  wait_until 30 "the server listens" listens
}
