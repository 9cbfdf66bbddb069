#!/bin/bash
# shellcheck source=ci/vm/cases/lib.sh
# docs/tutorial.md, typed from its first command to its last, where systemd is the first process (INIT=systemd of
# ci/vm/run) and the package (ci/package) is in the folder that is SHAREd. One host is both of its hosts: it knows
# itself by both names, and its server knows it as a client. Lines are run as they stand there; what has to differ here
# is in `as_typed`, and no line is left out.
. "$(dirname "$0")/../lib.sh"

# In a guest a copy of the tree takes its time.
run_limit=300
case_limit=900

# --- hosts as the tutorial has them ----------------------------------------------------------------------------------

make_web_and_backup() {
  truncate -s 1G /tmp/pools/backup
  zpool create -o ashift=12 -O mountpoint=none -O atime=off backup /tmp/pools/backup
  zfs set mountpoint=/tank tank
  zfs create tank/data
  zfs create tank/data/home
  zfs create tank/data/tmp
  zfs create tank/data/scratch
  zfs create -s -V 16M tank/data/disk
  head -c 32 /dev/urandom >"$work/secret"
  zfs create -o encryption=on -o keyformat=raw -o keylocation="file://$work/secret" tank/data/secret
  echo 'quarterly figures' >/tank/data/report.odt
  cp -r /etc/ssh /etc/systemd /tank/data/home
  echo 127.0.0.1 web.example backup.example >>/etc/hosts
  local key
  for key in "$work/host" "$work/key"; do ssh-keygen -q -t ed25519 -N '' -f "$key"; done
  /usr/sbin/sshd -f /dev/null -h "$work/host" -o StrictModes=no -o UsePAM=no -o AuthorizedKeysFile="$work/key.pub" \
    -o PidFile="$work/sshd.pid" -o Subsystem='sftp internal-sftp'
  install -d -m 700 /root/.ssh
  cp "$work/key" /root/.ssh/id_ed25519
  echo "web.example,backup.example $(cut -d ' ' -f 1,2 "$work/host.pub")" >/root/.ssh/known_hosts
  # The guest has no sudo: all that the tutorial asks of it.
  cat >/usr/local/bin/sudo <<'SUDO'
#!/bin/bash
[ "$1" = -u ] || exit 9
exec setpriv --reuid "$2" --regid "$2" --init-groups env HOME=/nonexistent "${@:3}"
SUDO
  chmod +x /usr/local/bin/sudo
}

# Whatever of it is there.
undo_web_and_backup() {
  trap - ERR
  set +e
  journalctl --quiet --output cat --unit zferry-serve --unit zferry-schedule >"$work/server.log"
  systemctl stop zferry-schedule zferry-serve
  dpkg --purge zferry
  umount -q /mnt/restore
  zpool destroy -f backup
  kill "$(cat "$work/sshd.pid")"
  rm -rf /etc/zferry /var/lib/zferry /root/.ssh /usr/local/bin/sudo
} >/dev/null 2>&1

# --- typing ----------------------------------------------------------------------------------------------------------

# The tutorial's own words for the fingerprint that a host was told, for a day, and for sizes and times that a guest would
# spend its day with.
as_typed() {
  local newest
  newest=$(zfs list -H -t snapshot -d 1 -s createtxg -o name backup/hosts/web/data 2>/dev/null | tail -n 1) || true
  sed -e "s|SHA256:\.\.\.|$told|" -e "s|backup/hosts/web/data@zferry_2026-[^ ]*|$newest|" \
    -e 's|apt-get install|& -y --no-install-recommends|' -e 's|head -c 1G |head -c 64M |' -e 's|--bwlimit 20MiB|--bwlimit 2MiB|' \
    -e 's|every = "15m"|every = "1m"|' -e 's|jitter = "30s"|jitter = "1s"|' <<<"$1"
}

# type_line LINE: well, by a shell of its own, in the folder where the package is.
type_line() { (cd /share && run 0 bash -euo pipefail -c "$(as_typed "$1")"); }

# What a line needs of the reader besides being typed, and what must be so after it.
follow() {
  local now
  case $1 in
    *'keys show'*)
      type_line "$1"
      told=$(grep -o 'SHA256:[^ ]*' "$work/out" | head -n 1)
      ;;
    'zferry replicate -n '*)
      zfs list -Hp -r -t all -o name,guid tank backup >"$work/before"
      type_line "$1"
      said 'zfs receive'
      zfs list -Hp -r -t all -o name,guid tank backup >"$work/after"
      cmp "$work/before" "$work/after" || fail "a rehearsal has changed something"
      ;;
    *'--bwlimit'*)
      slowly=$1
      (
        trap - ERR
        exec bash -c "exec $(as_typed "$1")" >"$work/slow.out" 2>&1
      ) &
      slow=$!
      wait_until 60 "a part of it has come" has_token backup/hosts/web/data
      ;;
    'ss -K'*)
      for _ in 1 2 3; do
        type_line "$1"
        pause 1
      done
      ! has_ended "$slow" || fail "the copy has ended: $(tail -n 3 "$work/slow.out")"
      grep -qi 'lost' "$work/slow.out" || fail "no connection was lost: $(tail -n 3 "$work/slow.out")"
      wait_until 20 "something that is worth going on with" some_has_come
      # "Now press Ctrl-C in the first terminal, and look."
      kill -INT "$slow"
      wait_until 30 "it ends" has_ended "$slow"
      ;;
    'zferry status --orphans'*)
      type_line "$1"
      said "${1##* }"
      # "Type the same once more, without": after the second look.
      [[ $1 != *tank/data ]] || is_carried_on
      ;;
    'zferry config check')
      python3 "$(dirname "$0")/typed.py" /host/docs/tutorial.md toml | tr -d '\0' >"$work/zferry.toml"
      as_typed "$(<"$work/zferry.toml")" >/etc/zferry/zferry.toml
      type_line "$1"
      ;;
    'systemctl enable --now zferry-schedule')
      now=$(date -u +%Y-%m-%dT%H:%M:%S)
      type_line "$1"
      wait_until 120 "the scheduler's first copy" succeeds_after "$now"
      ;;
    'systemctl restart zferry-schedule')
      type_line "$1"
      wait_until 30 "the page" page_has_the_job
      ;;
    *'status --watch')
      # It goes on until somebody has seen enough.
      type_line "timeout 4 $1 || [ \$? -eq 124 ]"
      said 'data'
      ;;
    'zferry prune'*)
      type_line "$1"
      said 'would be destroyed'
      ;;
    'scp '*)
      rm /tank/data/report.odt
      type_line "$1"
      grep -q 'quarterly' /tank/data/report.odt || fail "the file is not back"
      ;;
    'zfs mount -a')
      type_line "$1"
      grep -q 'quarterly' /tank/restored/report.odt || fail "the file is not in what was restored"
      echo more >/tank/restored/home/more
      ;;
    'systemctl start zferry-schedule')
      now=$(date -u +%Y-%m-%dT%H:%M:%S)
      echo 'figures after it' >/tank/data/later
      type_line "$1"
      wait_until 120 "the next copy of what was restored" succeeds_after "$now"
      ;;
    *) type_line "$1" ;;
  esac
}

page_has_the_job() {
  python3 -c 'import urllib.request; print(urllib.request.urlopen("http://localhost:9101/").read().decode())' 2>/dev/null |
    grep -q '<strong>data</strong>'
}

some_has_come() { zferry status --orphans backup/hosts/web | grep 'has .* MiB of'; }

is_carried_on() {
  type_line "${slowly% --bwlimit*} --config /etc/zferry"
  said 'goes on|had been sent'
  no_holds_left
}

last_success() {
  sudo -u zferry zferry status --json | python3 -c '
import json, sys
print((json.load(sys.stdin)["jobs"][0]["last_success"] or {}).get("at", "never"))'
}
succeeds_after() { [[ "$(last_success)" > "$1" && "$(last_success)" != never ]]; }

# --- cases -----------------------------------------------------------------------------------------------------------

case_everything_is_typed_and_does_what_it_says() {
  local line told='' slow slowly count=0
  trap undo_web_and_backup EXIT
  make_web_and_backup
  export DEBIAN_FRONTEND=noninteractive
  while IFS= read -r -d '' -u 5 line; do
    count=$((count + 1))
    follow "$line"
  done 5< <(python3 "$(dirname "$0")/typed.py" /host/docs/tutorial.md)
  [ $count -gt 30 ] || fail "only $count lines were typed"
  is_there_in_the_end
}

# That the words around the commands are true.
is_there_in_the_end() {
  local newest
  # It ends what it has begun.
  systemctl stop zferry-schedule
  newest=$(snapshots tank/data | tail -n 1 | cut -f 1)
  has_all_of "$newest"
  same_trees backup/hosts/web/data tank/data "$newest"
  [ "$(property readonly backup/hosts/web/data/home)" = on ] || fail "a copy may be changed"
  [ "$(property mounted backup/hosts/web/data/home)" = no ] || fail "a copy is mounted"
  ! zfs list -H -t snapshot -o name backup/hosts/web/data/tmp@"$newest" 2>/dev/null || fail "what is left out was copied"
}
has_all_of() { exists "backup/hosts/web/data/secret@$1" || fail "@$1 of the encrypted dataset has not come"; }

run_cases "$@"
