#!/bin/bash
# A scheduler that is left to itself: a tree of MANY datasets with clones, volumes and an encrypted branch by the clock,
# another dataset by what is written, kept and pruned on both sides, for MINUTES, while the wire, the server and the
# scheduler itself are cut, killed and stopped, and datasets come and go. In the end everything must be there, and
# status, alarms, metrics and page must say so.
. "$(dirname "$0")/lib.sh"

minutes=${MINUTES:-10}
many=${MANY:-200}
case_limit=$((minutes * 60 + 4200))
export ZFERRY_CONFIG=$client_config

case_long_minutes_with_faults_and_nobody_lends_a_hand() {
  local until number=0 seed=${SEED:-$RANDOM}
  echo "seed $seed"
  RANDOM=$seed
  make_many
  configure
  serve_as_granted
  start_schedule
  until=$((SECONDS + minutes * 60))
  while [ $SECONDS -lt $until ]; do
    number=$((number + 1))
    change $number
    fault $((RANDOM % 5))
    sleep $((2 + RANDOM % 6))
  done
  echo "$number changes and faults"
  stays_well
  is_told
  stop_schedule
  is_there tank/t vault/in/t
  is_there tank/b vault/in/b
  is_kept
  no_holds_left
}

# --- what there is -----------------------------------------------------------------------------------------------------

# Filesystems in groups, of which every tenth has some files; two volumes, two clones, an encrypted branch.
make_many() {
  local group number
  head -c 32 /dev/urandom >"$work/secret"
  zfs create -o mountpoint="$mnt/t" tank/t
  for group in 0 1 2 3; do zfs create "tank/t/g$group"; done
  for number in $(seq $((many - 14))); do zfs create "tank/t/g$((number % 4))/fs$number"; done
  zfs create -o encryption=on -o keyformat=raw -o keylocation="file://$work/secret" tank/t/e
  for number in 1 2 3; do zfs create "tank/t/e/x$number"; done
  zfs create -s -V 16M tank/t/v1
  zfs create -s -V 16M tank/t/v2
  zfs snapshot tank/t/g1/fs1@golden
  zfs clone tank/t/g1/fs1@golden tank/t/clone1
  zfs clone tank/t/g1/fs1@golden tank/t/a_clone2
  zfs create -o mountpoint="$mnt/b" tank/b
  head -c 2M /dev/urandom >"$mnt/b/first"
}

configure() {
  cat >"$work/zferry.toml" <<TOML
parallel = 2
[defaults]
retry-for = "2m"
[[job]]
name = "tree"
source = "tank/t"
target = "$url/t"
every = "1m"
recursive = true
parallel = 4
keep = "last=2"
keep-target = "last=3"
[[job]]
name = "written"
source = "tank/b"
target = "$url/b"
written = "3MiB"
check = "2s"
TOML
  run 0 "$zferry" config check --config "$work/zferry.toml"
}

serve_as_granted() {
  serve_by_keys --keep last=3 --allow receive-full,receive-incremental,resume,create-parents,abort-partial,prune "$@"
}

start_schedule() {
  "${on_client[@]}" "$zferry" schedule --config "$work/zferry.toml" --state "$work/state" --metrics 9101 \
    >>"$work/schedule.log" 2>&1 &
  scheduler=$!
}

stop_schedule() {
  local status=0
  kill -TERM "$scheduler"
  # It ends what it has begun: a copy of the whole tree.
  wait_until 1200 "the scheduler ends" has_ended "$scheduler"
  wait "$scheduler" || status=$?
  [ $status -eq 0 ] || fail "the scheduler ended with $status: $(tail -n 1 "$work/schedule.log")"
}

# --- what happens to it ------------------------------------------------------------------------------------------------

# Somebody works: files, a new dataset, one that goes, a block of a volume.
change() {
  local group=$((RANDOM % 4)) at
  head -c $((RANDOM * 8)) /dev/urandom >"$mnt/t/g$group/file$(($1 % 7))"
  head -c $((RANDOM * 4)) /dev/urandom >"$mnt/t/e/x$((1 + $1 % 3))/file"
  head -c 400000 /dev/urandom >>"$mnt/b/more"
  dd if=/dev/urandom of=/dev/zvol/tank/t/v1 bs=64k count=1 seek=$((RANDOM % 200)) conv=notrunc status=none
  at=tank/t/g$group/new$(($1 % 5))
  if exists "$at"; then
    zfs destroy -r "$at" 2>/dev/null || true
  else
    zfs create "$at"
  fi
}

fault() {
  case $1 in
    0)
      ip -n client link set to_server down
      sleep $((1 + RANDOM % 4))
      ip -n client link set to_server up
      ;;
    1)
      kill -KILL "$server"
      wait "$server" 2>/dev/null || true
      serve_again
      ;;
    2)
      kill -KILL "$scheduler"
      wait "$scheduler" 2>/dev/null || true
      start_schedule
      ;;
    3) pkill -KILL -o -f '^[^ ]*zfs receive ' || true ;;
    4) pkill -KILL -o -f '^[^ ]*zfs send ' || true ;;
  esac
}

# With the keys and grants that are there.
serve_again() {
  (
    trap - ERR
    exec >>"$work/server.log" 2>&1
    ZFERRY_CONFIG=$server_config exec "${on_server[@]}" "$zferry" -v serve --listen "$address:$port"
  ) &
  server=$!
}

# --- what must be so in the end ----------------------------------------------------------------------------------------

status_of() {
  "${on_client[@]}" "$zferry" status --state "$work/state" --json >"$work/status.json" &&
    python3 - "$1" "$work/status.json" <<'PYTHON'
import json, sys
jobs = {job["name"]: job for job in json.load(open(sys.argv[2]))["jobs"]}
print((jobs[sys.argv[1]]["last_success"] or {}).get("at", "never"))
PYTHON
}

# succeeds_after NAME MOMENT
succeeds_after() { [[ "$(status_of "$1")" > "$2" && "$(status_of "$1")" != never ]]; }

# Both jobs run well once more, without anybody doing anything. What was destroyed and made anew has no more in common
# with its copy: nobody but an operator may take that out of the way, so it is destroyed at the source.
stays_well() {
  local now number
  for number in 0 1 2 3 4; do
    for group in 0 1 2 3; do zfs destroy -r "tank/t/g$group/new$number" 2>/dev/null || true; done
  done
  now=$(date -u +%Y-%m-%dT%H:%M:%S)
  # By hundreds of datasets, each with what the faults have left to be done, on an emulated machine.
  wait_until 1800 "the tree is copied well" succeeds_after tree "$now"
  # After it, for where nothing is written nothing is copied, and the last success grows old.
  head -c 4M /dev/urandom >"$mnt/b/last"
  zpool sync tank
  now=$(date -u +%Y-%m-%dT%H:%M:%S)
  wait_until 300 "what was written is copied well" succeeds_after written "$now"
}

is_told() {
  run 0 "${on_client[@]}" "$zferry" monitor --state "$work/state" --warn 10m --crit 20m
  run 0 "${on_client[@]}" "$zferry" status --state "$work/state"
  said 'tree'
  "${on_client[@]}" python3 -c '
import sys, urllib.request
for path in ("/metrics", "/", "/status.json"):
    print(urllib.request.urlopen("http://127.0.0.1:9101" + path).read().decode())' >"$work/out"
  said 'zferry_job_last_success_timestamp_seconds\{name="tree"\}'
  said 'zferry_dataset_last_success_timestamp_seconds\{.*dataset="tank/t/e/x1"'
  said 'zferry_cuts_survived_total'
  said '<svg'
}

# is_there SOURCE TARGET: the newest snapshot that zferry has taken of the tree, of each dataset that has it.
is_there() {
  local newest dataset there
  newest=$(zfs list -H -t snapshot -d 1 -s createtxg -o name "$1" | sed -n 's/.*@\(zferry_\)/\1/p' | tail -n 1)
  [ -n "$newest" ] || fail "no snapshot was taken of $1"
  zfs list -Hp -r -t snapshot -o name,guid "$1" | grep "@$newest" | sed "s|^$1||" | sort >"$work/ours"
  zfs list -Hp -r -t snapshot -o name,guid "$2" | grep "@$newest" | sed "s|^$2||" | sort >"$work/theirs"
  comm -23 "$work/ours" "$work/theirs" >"$work/missing"
  [ ! -s "$work/missing" ] || fail "$(wc -l <"$work/missing") datasets have no @$newest: $(head -n 3 "$work/missing" | paste -sd,)"
  [ "$(wc -l <"$work/ours")" -ge 1 ] || fail "nothing was compared"
}

is_kept() {
  local count
  count=$(snapshots tank/t/g0 | grep -c '^zferry_')
  [ "$count" -le 3 ] || fail "$count snapshots of ours are left at the source"
  count=$(snapshots vault/in/t/g0 | grep -c '^zferry_')
  [ "$count" -le 4 ] && [ "$count" -ge 2 ] || fail "$count snapshots are left at the target"
  exists tank/t/g1/fs1@golden || fail "a snapshot of somebody else is gone"
}

run_cases "$@"
