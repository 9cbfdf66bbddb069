# shellcheck shell=bash
# What the end-to-end cases share: pools, two hosts made of network namespaces, zferry as server and client, and
# assertions. A case file sources this first, defines functions named case_*, and calls run_cases last. Every case
# runs in a bash of its own with -e, in fresh pools; it passes when it comes to its end. Only for the guest of
# ci/vm/run: it destroys the pools `tank` and `vault` without asking.
#
#   tank   the source pool; a case makes its datasets there
#   vault  the target pool; vault/in is the root of the server
#
# The server's host is 10.77.0.1, the client's 10.77.0.2, joined by a veth pair; both see the same ZFS.

. "$(dirname "${BASH_SOURCE[0]}")/assert.sh"

# In the guest's own memory: from the host's folder a start takes a fifth of a second longer.
zferry=/run/zferry
[ -e $zferry ] || cp /host/zferry $zferry
address=10.77.0.1
port=7001
url=zferry://$address:$port
# Of the case: what it writes, what the server says, what the last command said.
work=/tmp/case
mnt=/tmp/mnt
# A single run of zferry that takes longer than this hangs.
run_limit=120
case_limit=420

# --- running cases ---------------------------------------------------------------------------------------------------

# Runs the case functions of this file in the order in which they stand there. CASE, a glob, chooses among them; so
# does PART, `1/2` and `2/2` in two guests that share the work. Those named case_long_* run where LONG is set.
run_cases() {
  if [ "${1:-}" = --case ]; then
    one_case "$2"
    return
  fi
  local file function name started passed=0 failed=0 status part=${PART:-1/1} turn=${TURN:-0}
  file=$(basename "$0" .sh)
  for function in $(sed -n 's/^\(case_[a-z0-9_]*\)().*/\1/p' "$0"); do
    # shellcheck disable=SC2053 # a glob on purpose
    [[ ${function#case_} == ${CASE:-*} ]] || continue
    [[ $function != case_long_* || -n ${LONG:-} ]] || continue
    turn=$((turn + 1))
    [ $((turn % ${part#*/})) -eq $((${part%/*} - 1)) ] || continue
    name=$file/${function#case_}
    started=$SECONDS
    clean_up
    mkdir -p "$work" "$mnt"
    status=0
    timeout -k 10 "$case_limit" bash "$0" --case "$function" >/tmp/case.log 2>&1 || status=$?
    if [ "$status" -eq 0 ]; then
      passed=$((passed + 1))
      echo "ok $name ($((SECONDS - started)) s)"
    else
      failed=$((failed + 1))
      [ "$status" -ne 124 ] || echo "still running after $case_limit s" >>"$work/why"
      report "$name" "$status"
    fi
  done
  clean_up
  if [ -n "${TALLY:-}" ]; then
    echo "$passed $failed" >>"$TALLY"
  else
    echo "$passed passed, $failed failed"
  fi
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}

# In one go: two guests may write to the same terminal.
report() {
  local why
  why=$(head -n 1 "$work/why" 2>/dev/null) || why="exit status $2"
  printf 'not ok %s: %s\n%s\n' "$1" "$why" "$(
    tail -n 40 /tmp/case.log | sed 's/^/# /'
    [ ! -s "$work/server.log" ] || tail -n 15 "$work/server.log" | sed 's/^/# server: /'
    [ ! -s "$work/receive.log" ] || tail -n 15 "$work/receive.log" | sed 's/^/# receiver: /'
  )"
}

one_case() {
  set -Eeuo pipefail
  trap 'broken $? "$BASH_COMMAND"' ERR
  server=
  make_hosts
  make_pools
  "$1"
  [ -z "$server" ] || stop_server
  ! grep -hs 'panicked at' "$work"/{server.log,receive.log,out,err} || fail "zferry panicked"
}

# --- hosts and pools -------------------------------------------------------------------------------------------------

make_hosts() {
  [ ! -e /run/netns/server ] || return 0
  ip netns add server
  ip netns add client
  ip link add to_client netns server type veth peer name to_server netns client
  ip -n server addr add $address/24 dev to_client
  ip -n client addr add 10.77.0.2/24 dev to_server
  ip -n server link set lo up
  ip -n client link set lo up
  ip -n server link set to_client up
  ip -n client link set to_server up
}

# nsenter and not `ip netns exec`: that makes a mount namespace too, and zfs could not mount for everybody. Arrays and
# not functions, because `timeout` and `exec` take programs only: "${on_client[@]}" COMMAND...
on_server=(nsenter --net=/run/netns/server)
on_client=(nsenter --net=/run/netns/client)

# The link from the client to the server, narrowed so that a case has time to interfere. Connections share it fairly:
# what else a case says to the server does not wait behind a transfer.
narrow_link() {
  tc -n client qdisc add dev to_server root handle 1: tbf rate "$1" burst 64kb latency 400ms
  tc -n client qdisc add dev to_server parent 1: handle 10: sfq
}
change_link() { tc -n client qdisc change dev to_server root handle 1: tbf rate "$1" burst "$2" latency 400ms; }
widen_link() { change_link 10gbit 10mb; }

bytes_over_wire() { "${on_client[@]}" awk '$1 == "to_server:" { print $10 }' /proc/net/dev; }

make_pools() {
  local pool
  mkdir -p /tmp/pools
  for pool in tank vault; do
    truncate -s 1G /tmp/pools/$pool
    zpool create -o ashift=12 -O mountpoint=none -O atime=off $pool /tmp/pools/$pool
  done
  zfs create vault/in
}

# After a case, however it ended: no process of either host, no mount, no pool, no link settings are left.
clean_up() {
  local host pool pids
  for host in server client; do
    [ -e /run/netns/$host ] || continue
    pids=$(ip netns pids $host)
    # shellcheck disable=SC2086 # a list of numbers
    [ -z "$pids" ] || kill -9 $pids 2>/dev/null
  done
  pkill -9 -x zfs
  tc -n client qdisc del dev to_server root 2>/dev/null
  tc -n server qdisc del dev to_client root 2>/dev/null
  umount -q -R $mnt/* 2>/dev/null
  for pool in tank vault; do
    for _ in $(seq 100); do
      zpool list -H "$pool" >/dev/null 2>&1 || break
      zpool destroy -f "$pool" 2>/dev/null && break
      sleep 0.2
    done
  done
  rm -rf /tmp/pools $work $mnt
}

# --- zferry ----------------------------------------------------------------------------------------------------------

# serve [OPTION...]: starts the server on vault/in and waits until it listens; $server is its process. A server that
# still runs at the end of a case is stopped there, and must take that well.
serve() { serve_as root "$@"; }

# serve_as USER [OPTION...]
serve_as() {
  local user=$1
  shift
  (
    trap - ERR
    exec >"$work/server.log" 2>&1
    exec "${on_server[@]}" setpriv --reuid "$user" --regid "$user" --clear-groups \
      env HOME="$(getent passwd "$user" | cut -d : -f 6)" \
      "$zferry" serve --listen "$address:$port" --root vault/in --plain "$@"
  ) &
  server=$!
  wait_until 20 "the server says that it listens" grep -q "listening on $address:$port" "$work/server.log"
}

# Of hosts that know each other by keys: where each keeps its own, and whom it trusts.
server_config=$work/server-config
client_config=$work/client-config

keys_of_server() { ZFERRY_CONFIG=$server_config "$zferry" keys "$@"; }
# fingerprint CONFIG: of the key there, which is made if there is none.
fingerprint() { ZFERRY_CONFIG=$1 "$zferry" keys show | grep -o 'SHA256:[^ ]*' | head -n 1; }

# serve_by_keys [GRANT...]: a server that knows one client, `carrier`, whose root is vault/in; and who runs this (at
# ZFERRY_CONFIG) knows it.
serve_by_keys() {
  keys_of_server trust client carrier "$(fingerprint "$client_config")" --root vault/in "$@"
  "$zferry" keys trust server "$address:$port" "$(fingerprint "$server_config")"
  (
    trap - ERR
    exec >"$work/server.log" 2>&1
    ZFERRY_CONFIG=$server_config exec "${on_server[@]}" "$zferry" -v serve --listen "$address:$port"
  ) &
  server=$!
  wait_until 20 "the server says that it listens" grep -q "listening on $address:$port" "$work/server.log"
}

# granted_on NAME: what docs/least-privilege.md grants on its dataset NAME, as `zfs allow` takes it.
granted_on() {
  local words
  words=$(sed -n "s|^zfs allow -u zferry \([a-z,]*\) $1\$|\1|p" /host/docs/least-privilege.md)
  [[ $words =~ ^[a-z]+(,[a-z]+)*$ ]] || fail "docs/least-privilege.md does not grant one list on $1: $words"
  echo "$words"
}

stop_server() {
  kill -TERM "$server"
  server_ends 0
}

# server_ends EXPECTED
server_ends() {
  local status=0
  wait_until 60 "the server ends" has_ended "$server"
  wait "$server" || status=$?
  server=
  [ "$status" -eq "$1" ] || fail "the server ended with $status, expected $1"
}

# Ended, but not yet waited for, is a zombie.
has_ended() {
  local stat
  ! read -r stat <"/proc/$1/stat" || [[ $stat == *') Z '* ]]
} 2>/dev/null

# run EXPECTED COMMAND...: the exit status must be EXPECTED; what it said is in $work/out and $work/err.
run() {
  local expected=$1 status=0
  shift
  echo "+ $*"
  timeout -k 10 "$run_limit" "$@" >"$work/out" 2>"$work/err" || status=$?
  cat "$work/out" "$work/err"
  [ "$status" -ne 124 ] || fail "still running after $run_limit s: $*"
  ended_with "$expected" "$status" "$*"
}

ended_with() { [ "$2" -eq "$1" ] || fail "exit status $2, expected $1: $3: $(last_words)"; }

last_words() { sed '/./!d' "$work/out" "$work/err" | tail -n 1; }

# For how many seconds a copy that is cut off is tried again: a case that wants to see the failure leaves it at 0.
retry_for=0

# How clients and servers talk: in clear, but where a case says otherwise.
manner=--plain

# start_receive [OPTION...] [-- COMMAND...]: `zferry receive` on the server's host, at the same port; $receiver is its
# process. What it says is in $work/receive.log, and what came in $work/received, where no COMMAND takes it.
# shellcheck disable=SC2086 # a flag or none
start_receive() {
  # Here: the log of another must not be taken for its own.
  : >"$work/receive.log"
  (
    trap - ERR
    exec >"$work/received" 2>>"$work/receive.log"
    exec "${on_server[@]}" "$zferry" receive --listen "$address:$port" $manner "$@"
  ) &
  receiver=$!
  wait_until 20 "zferry receive listens" grep -q "listening on $address:$port" "$work/receive.log"
}

# receive_ends EXPECTED
receive_ends() {
  local status=0
  wait_until 60 "zferry receive ends" has_ended "$receiver"
  wait "$receiver" || status=$?
  cat "$work/receive.log"
  [ "$status" -eq "$1" ] || fail "zferry receive ended with $status, expected $1: $(tail -n 1 "$work/receive.log")"
}

# start_sshd [PORT]: on the server's host, for whoever has $work/key. The end of the case finds it in its namespace.
start_sshd() {
  local key ssh_port=${1:-22}
  for key in "$work/host" "$work/key"; do
    ssh-keygen -q -t ed25519 -N '' -f "$key"
  done
  "${on_server[@]}" /usr/sbin/sshd -f /dev/null -p "$ssh_port" -h "$work/host" -E "$work/sshd.log" -o StrictModes=no \
    -o UsePAM=no -o PermitRootLogin=prohibit-password -o AuthorizedKeysFile="$work/key.pub" -o PidFile=none
  wait_until 30 "sshd listens" listens_on "$ssh_port"
}
listens_on() { [ -n "$("${on_server[@]}" ss -Hltn "sport = :$1")" ]; }

# manner_to TARGET: within one host there is nothing to say.
manner_to() { [[ $1 != zferry://* ]] || echo "$manner"; }

# shellcheck disable=SC2046,SC2086 # a flag or none
# replicate EXPECTED [OPTION...] SRC DST
replicate() {
  local expected=$1
  shift
  run "$expected" "${on_client[@]}" "$zferry" replicate --retry-for "$retry_for" "$@" $(manner_to "${@: -1}")
}

# start_replicate [OPTION...] SRC DST: in the background; $client is its process.
start_replicate() {
  echo "+ zferry replicate $* &"
  (
    trap - ERR
    exec >"$work/out" 2>"$work/err"
    exec "${on_client[@]}" "$zferry" replicate --retry-for "$retry_for" "$@" $(manner_to "${@: -1}")
  ) &
  client=$!
}

# replicate_ends EXPECTED
replicate_ends() {
  local status=0
  wait_until "$run_limit" "the client ends" has_ended "$client"
  wait "$client" || status=$?
  cat "$work/out" "$work/err"
  ended_with "$1" "$status" "zferry replicate"
}

# said REGEX: of the last command; case does not matter.
said() { grep -qiE -- "$1" "$work/out" "$work/err" || fail "it did not say /$1/, but: $(last_words)"; }

# --- what is on the pools --------------------------------------------------------------------------------------------

property() { zfs get -Hp -o value "$1" "$2"; }
exists() { zfs list -H -o name "$1" >/dev/null 2>&1; }
token_of() { property receive_resume_token "$1" 2>/dev/null || echo -; }
has_token() { [ "$(token_of "$1")" != - ]; }

# In which lines two files differ: the first few, in one line.
differences() {
  { diff "$1" "$2" || true; } | sed '/^[<>]/!d' | sed -n '1,4p' | paste -sd, | tr '\t' ' '
}

# Snapshots of a dataset, oldest first: name and guid.
snapshots() { zfs list -Hp -t snapshot -d 1 -s createtxg -o name,guid "$1" | sed 's/^[^@]*@//'; }

# Everything there is on a pool, for "nothing was changed".
inventory() { zfs list -Hp -t all -r -s name -o name,guid,type "$1"; }

# has_snapshots DST SRC NAME...: exactly these, with the guids of the source, in this order.
has_snapshots() {
  local target=$1 source=$2 name
  shift 2
  exists "$target" || fail "$target does not exist"
  for name in "$@"; do
    printf '%s\t%s\n' "$name" "$(property guid "$source@$name")"
  done >"$work/expected"
  snapshots "$target" >"$work/actual"
  cmp -s "$work/expected" "$work/actual" ||
    fail "snapshots of $target: expected $(paste -sd, "$work/expected" | tr '\t' =), found $(paste -sd, "$work/actual" | tr '\t' =)"
}

# same_trees DST SRC NAME...: the files of these snapshots are the same on both sides.
same_trees() {
  local target=$1 source=$2 name look=$mnt/look number=0 folders=()
  shift 2
  for name in "$@"; do
    number=$((number + 1))
    folders+=("$look/source.$number" "$look/target.$number")
    mkdir -p "$look/source.$number" "$look/target.$number"
    mount -t zfs -o ro "$source@$name" "$look/source.$number"
    mount -t zfs -o ro "$target@$name" "$look/target.$number"
  done
  if ! python3 "$(dirname "${BASH_SOURCE[0]}")/compare.py" "${folders[@]}" >"$work/same" 2>&1; then
    # A line for every pair, up to the one that differs.
    number=$(wc -l <"$work/same")
    fail "the files of @${!number} differ: $(tail -n 1 "$work/same")"
  fi
  umount "${folders[@]}"
}

# blocks DATASET@SNAPSHOT: a hash of a volume's whole snapshot. The device appears when udev has seen snapdev=visible,
# and where a volume was received, only once somebody wants it to be one (volmode).
blocks() {
  zfs set volmode=default "${1%@*}"
  zfs set snapdev=visible "${1%@*}"
  wait_until 20 "a device for $1" test -b "/dev/zvol/$1"
  sha256sum <"/dev/zvol/$1"
}

# replicated DST SRC NAME...
replicated() {
  has_snapshots "$@"
  same_trees "$@"
}

# Tags of zferry on the snapshots of a pool, one line each.
zferry_holds() {
  zfs list -H -t snapshot -r -o name "$1" | xargs -r -d '\n' zfs holds -H >"$work/holds"
  cut -f 1,2 "$work/holds" | { grep -i 'zferry' || true; }
}

no_holds_left() {
  local pool
  for pool in tank vault; do
    zferry_holds $pool >"$work/left"
    [ ! -s "$work/left" ] || fail "holds left on $pool: $(paste -sd, "$work/left")"
  done
}

# --- what there is to replicate --------------------------------------------------------------------------------------

# make_small DATASET [OPTION...]: a filesystem with a few hundred real files, mounted at $files; no snapshot yet.
make_small() {
  local dataset=$1
  shift
  files=$mnt/files
  zfs create -o mountpoint="$files" "$@" "$dataset"
  cp -a /etc "$files/etc"
}

# change_small NUMBER: something new, something changed, something gone, different for every number.
change_small() {
  local file
  mkdir -p "$files/new"
  echo "change $1" >>"$files/etc/hosts"
  head -c 300000 /dev/urandom >"$files/new/$1"
  file=$(find "$files/etc" -type f | sort | sed -n "$((7 * $1))p")
  rm "$file"
}

# make_heavy DATASET MIB [OPTION...]: random bytes, which no compression makes less: a transfer of known length.
make_heavy() {
  local dataset=$1 mib=$2
  shift 2
  files=$mnt/files
  zfs create -o mountpoint="$files" "$@" "$dataset"
  head -c "${mib}M" /dev/urandom >"$files/heavy"
}

# under_way [OPTION...] SRC DST: a transfer in its middle: 2 MB of it are with `zfs receive`, which keeps what it has
# taken however it ends, and the rest takes for ever: 8 s for every MB. widen_link lets it finish.
under_way() {
  narrow_link 32mbit
  start_replicate "$@"
  wait_until 60 "zfs receive has 2 MB" receive_has_taken 2000000
  change_link 1mbit 64kb
  ! has_ended "$client" || fail "the transfer ended before anything could happen to it: $(last_words)"
}

receive_has_taken() {
  local pid taken
  pid=$(pgrep -f '^[^ ]*zfs receive ')
  taken=$(awk '$1 == "rchar:" { print $2 }' "/proc/$pid/io")
  [ "$taken" -ge "$1" ]
}
