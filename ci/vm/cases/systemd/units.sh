#!/bin/bash
# shellcheck source=ci/vm/cases/lib.sh
# The units of docs/systemd, installed as docs/least-privilege.md says, in a guest whose first process is systemd
# (INIT=systemd of ci/vm/run): zferry serves without root and without privileges, lets transfers end when it is stopped, and
# comes back when it was killed. Before all that, the package (ci/package), which the folder that is SHAREd has.
. "$(dirname "$0")/../lib.sh"

unit=zferry-serve
# The most that `systemd-analyze security` may say of the unit, of 10: below it are the network and /dev/zfs, without
# which it would not be a server of ZFS.
exposure_max=1.5

# --- the unit as it is installed -------------------------------------------------------------------------------------

# Fresh for each case; what no case changes is installed once.
install_unit() {
  systemctl stop $unit 2>/dev/null || true
  systemctl reset-failed $unit 2>/dev/null || true
  [ -e /usr/local/bin/zferry ] || install_program
  rm -rf /etc/systemd/system/$unit.service.d /var/lib/zferry
  install -m 644 /host/docs/systemd/zferry-serve.service /etc/systemd/system/
  rm -rf /etc/zferry
  install -d -m 755 -o zferry -g zferry /etc/zferry
  install -m 644 /host/docs/systemd/serve.env /etc/zferry/serve.env
  sed -i "s|^ZFERRY_LISTEN=.*|ZFERRY_LISTEN=$address:$port|" /etc/zferry/serve.env
  as_zferry keys trust client carrier "$(fingerprint "$client_config")" --root vault/in >/dev/null
  "$zferry" keys trust server "$address:$port" "$(as_zferry keys show | grep -o 'SHA256:[^ ]*' | head -n 1)" >/dev/null
  zfs allow -u zferry "$(granted_on backup/hosts)" vault/in
  # On the host of the other cases, so that the link to it can be narrowed.
  drop_in 'NetworkNamespacePath=/run/netns/server' "$@"
  since=@$EPOCHSECONDS
  trap journal_to_report EXIT
}

as_zferry() { setpriv --reuid zferry --regid zferry --clear-groups "$zferry" "$@" --config /etc/zferry; }

# Clients of the unit are known by their keys.
manner=
export ZFERRY_CONFIG=$client_config

install_program() {
  install -D -m 644 /host/docs/systemd/zferry.sysusers /etc/sysusers.d/zferry.conf
  systemd-sysusers
  install -m 755 "$zferry" /usr/local/bin/zferry
}

# drop_in LINE...: lines of [Service], as `systemctl edit` would add them.
drop_in() {
  mkdir -p /etc/systemd/system/$unit.service.d
  printf '%s\n' '[Service]' "$@" >/etc/systemd/system/$unit.service.d/override.conf
  systemctl daemon-reload
}

start_unit() {
  systemctl start $unit
  wait_until 30 "the unit says that it listens" journal_says "listening on $address:$port"
  server_pid=$(of_unit MainPID)
}

of_unit() { systemctl show --property "$1" --value $unit; }
is() { [ "$(of_unit "$1")" = "$2" ]; }

# What `systemd-analyze security` says of the unit, of 10; its reasons go to $work/security.
exposure() {
  systemd-analyze security --no-pager $unit.service | tee "$work/security" |
    sed -n 's/.*exposure level .*: \([0-9.]*\) .*/\1/p'
}

# Of this case.
journal() { journalctl --quiet --output cat --since "$since" --unit $unit; }
journal_says() { journal | grep -qE -- "$1"; }
journal_to_report() { journal >"$work/server.log"; }

# Stopped as it should be: by itself, with nothing left of it.
stop_unit() {
  systemctl stop $unit
  is ActiveState inactive || fail "the unit is $(of_unit ActiveState)"
  is Result success || fail "the unit was stopped with $(of_unit Result)"
  is ExecMainStatus 0 || fail "the server ended with $(of_unit ExecMainStatus)"
  ! pgrep -u zferry || fail "a process of the unit is left"
  ! journal | grep 'panicked at' || fail "zferry panicked"
}

# --- cases -----------------------------------------------------------------------------------------------------------

# The package for Debian (ci/package), which ci/vm/run SHAREs: first, for what the others install lies in front of it.
case_the_package_is_installed_used_and_taken_away() {
  local deb server_before
  export DEBIAN_FRONTEND=noninteractive
  deb=$(ls /share/zferry_*.deb) || fail "there is no package: ci/package makes it"
  # This guest leaves pages and documentation out otherwise.
  apt-get install -y --no-install-recommends -o 'Dpkg::Options::=--path-include=*' "$deb"
  [ "$(zferry --version)" = "$("$zferry" --version)" ] || fail "another version is packaged"
  for file in man/man1/zferry.1.gz man/man1/zferry-replicate.1.gz bash-completion/completions/zferry \
    zsh/vendor-completions/_zferry fish/vendor_completions.d/zferry.fish doc/zferry/copyright; do
    [ -s "/usr/share/$file" ] || fail "there is no /usr/share/$file"
  done
  [ "$(stat -c %U:%G:%a /etc/zferry)" = zferry:zferry:755 ] || fail "/etc/zferry is $(stat -c %U:%G:%a /etc/zferry)"
  systemd-analyze verify zferry-serve.service zferry-schedule.service 2>&1 | tee "$work/verified"
  [ ! -s "$work/verified" ] || fail "systemd finds fault with the units"
  for unit in zferry-schedule zferry-serve; do
    [ "$(systemctl is-enabled $unit || true)" = disabled ] || fail "$unit is $(systemctl is-enabled $unit)"
    is ActiveState inactive || fail "$unit is $(of_unit ActiveState)"
  done
  # As a stranger would: an address, a client, and go.
  sed -i "s|^ZFERRY_LISTEN=.*|ZFERRY_LISTEN=$address:$port|" /etc/zferry/serve.env
  drop_in 'NetworkNamespacePath=/run/netns/server'
  since=@$EPOCHSECONDS
  trap journal_to_report EXIT
  as_zferry keys trust client carrier "$(fingerprint "$client_config")" --root vault/in >/dev/null
  "$zferry" keys trust server "$address:$port" "$(as_zferry keys show | grep -o 'SHA256:[^ ]*' | head -n 1)" >/dev/null
  systemctl enable $unit
  # That it serves is for the cases below, which have the same unit.
  start_unit
  # The scheduler has nothing to do yet, which is no mistake.
  systemctl start zferry-schedule
  # An upgrade lets it go on with the new program. By dpkg from here on: apt takes its time, and does the same.
  server_before=$server_pid
  dpkg --install "$deb"
  wait_until 30 "the server was started again" restarted "$server_before"
  wait_until 30 "the scheduler was started again" systemctl is-active zferry-schedule
  [ "$(stat -c %U /etc/zferry)" = zferry ] || fail "/etc/zferry belongs to $(stat -c %U /etc/zferry)"
  grep -q "^ZFERRY_LISTEN=$address:$port$" /etc/zferry/serve.env || fail "its configuration was lost"
  # Removed, it has left what is its user's; purged, nothing but that.
  echo mine >/etc/zferry/mine
  dpkg --remove zferry
  ! pgrep -u zferry || fail "a process of a unit is left"
  [ ! -e /usr/bin/zferry ] || fail "the program is left"
  [ -e /etc/zferry/key.pem ] && [ -e /etc/zferry/clients.toml ] && [ -e /etc/zferry/serve.env ] || fail "keys are gone"
  dpkg --purge zferry
  [ "$(ls -A /etc/zferry)" = mine ] || fail "left in /etc/zferry: $(ls -A /etc/zferry)"
  rm -r /etc/zferry
  rm -r /etc/systemd/system/$unit.service.d
  find / -xdev -name '*zferry*' ! -name 'zferry-guest' ! -path '/run/*' ! -path '/tmp/*' >"$work/left"
  [ ! -s "$work/left" ] || fail "left behind: $(tr '\n' ' ' <"$work/left")"
  getent passwd zferry >/dev/null || fail "the user is gone, and its number would be another's next"
}

restarted() { is ActiveState active && ! is MainPID "$1"; }

case_serves_without_privileges() {
  local score
  install_unit
  start_unit
  score=$(exposure)
  # What it costs, for whoever reads this.
  grep '✗' "$work/security"
  echo "systemd-analyze security $unit.service: $score" | tee /run/exposure
  awk -v score="$score" -v most=$exposure_max 'BEGIN { exit !(score > 0 && score <= most) }' ||
    fail "its exposure is $score, at most $exposure_max is allowed"
  [ "$(ps -o user= -p "$server_pid")" = zferry ] || fail "it runs as $(ps -o user= -p "$server_pid")"
  grep -q '^CapBnd:[[:space:]]*0*$' "/proc/$server_pid/status" || fail "it could get privileges"
  # It has not fallen back to plain calls.
  readlink "/proc/$server_pid"/fd/* | grep -q io_uring || fail "it does without io_uring"
  # The filter lets it do what it does at its start.
  grep -q '^Max open files *8192 ' "/proc/$server_pid/limits" || fail "it could not raise its limit of files"
  make_small tank/data
  zfs snapshot tank/data@one
  # Into a folder that is made for it, then by way of the workers that unpack.
  replicate 0 --snapshot one tank/data "$url/made/for/data"
  change_small 1
  zfs snapshot tank/data@two
  replicate 0 --snapshot two --compress zstd:3 tank/data "$url/made/for/data"
  replicated vault/in/made/for/data tank/data one two
  no_holds_left
  [ "$(property readonly vault/in/made/for/data)" = on ] || fail "the target may be changed"
  # Nothing was refused on the way that it does without.
  ! journal | grep -iE 'warn|error|permission|not permitted' || fail "the journal has complaints"
  stop_unit
}

case_a_restart_lets_a_transfer_end() {
  install_unit
  start_unit
  make_heavy tank/data 24
  zfs snapshot tank/data@one
  under_way --snapshot one tank/data "$url/data"
  grep -q "in boot $(tr -d - </proc/sys/kernel/random/boot_id)" <("$zferry" inspect /var/lib/zferry/serve/*/*.breakpoint) ||
    fail "its record does not know the boot"
  systemctl restart --no-block $unit
  wait_until 20 "the server is stopping" journal_says 'stopping when the last transfer ends'
  pause 2
  is MainPID "$server_pid" || fail "the server has ended before its transfer"
  is ActiveState deactivating || fail "the unit is $(of_unit ActiveState)"
  pgrep -u zferry -f '^[^ ]*zfs receive ' || fail "zfs receive was stopped, too"
  ! has_ended "$client" || fail "the transfer ended with the restart: $(last_words)"
  widen_link
  replicate_ends 0
  replicated vault/in/data tank/data one
  wait_until 30 "the next server runs" is ActiveState active
  ! is MainPID "$server_pid" || fail "it is the same server"
  no_holds_left
  stop_unit
}

case_a_transfer_that_outlasts_a_restart_goes_on() {
  install_unit 'TimeoutStopSec=1s'
  start_unit
  make_heavy tank/data 24
  zfs snapshot tank/data@one
  retry_for=2m
  under_way --snapshot one tank/data "$url/data"
  systemctl restart $unit
  is ActiveState active || fail "the unit is $(of_unit ActiveState)"
  ! is MainPID "$server_pid" || fail "it is the same server"
  journal_says 'timed out' || fail "it was not killed"
  widen_link
  replicate_ends 0
  said 'had been sent before'
  replicated vault/in/data tank/data one
  no_holds_left
  stop_unit
}

case_a_server_that_was_killed_comes_back() {
  install_unit
  start_unit
  kill -9 "$server_pid"
  wait_until 30 "it is started again" is NRestarts 1
  wait_until 30 "it listens again" listens_again
  stop_unit
}

listens_again() { [ "$(journal | grep -c 'listening on')" -eq 2 ]; }

# What it would never do right is not tried over and over.
case_a_wrong_setting_is_told_and_not_tried_again() {
  install_unit
  sed -i 's|^ZFERRY_OPTIONS=.*|& --no-such-option|' /etc/zferry/serve.env
  # With Type=exec it has started, and then ends.
  systemctl start $unit || true
  wait_until 30 "it has failed" is ActiveState failed
  is ExecMainStatus 3 || fail "it ended with $(of_unit ExecMainStatus)"
  is NRestarts 0 || fail "it was started again"
  journal_says 'no-such-option' || fail "the journal does not say why"
}

# The other unit, with the server's as its target.
case_schedules_without_privileges() {
  local own score
  install_unit
  own=$(as_zferry keys show | grep -o 'SHA256:[^ ]*' | head -n 1)
  as_zferry keys trust client itself "$own" --root vault/in --prefix own >/dev/null
  as_zferry keys trust server "$address:$port" "$own" >/dev/null
  start_unit
  make_small tank/data
  zfs snapshot tank/data@one
  zfs allow -u zferry "$(granted_on tank/data)" tank/data
  cat >/etc/zferry/zferry.toml <<TOML
[[job]]
name = "data"
source = "tank/data"
target = "$url/own/data"
every = "3s"
[[job]]
name = "by-ssh"
source = "tank/data"
target = "root@$address:vault/ssh"
every = "1h"
no-snapshot = true
TOML
  install -m 644 /host/docs/systemd/zferry-schedule.service /etc/systemd/system/
  echo 'ZFERRY_OPTIONS=--metrics 9101' >/etc/zferry/schedule.env
  start_sshd
  knows_by_ssh
  unit=zferry-schedule
  drop_in 'NetworkNamespacePath=/run/netns/client'
  systemctl start $unit
  wait_until 90 "copies" has_copies 3
  wait_until 60 "a copy by ssh" exists vault/ssh
  "${on_client[@]}" python3 -c '
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9101/metrics").read().decode())' >"$work/out"
  said 'zferry_runs_total\{name="data"\} [1-9]'
  server_pid=$(of_unit MainPID)
  [ "$(ps -o user= -p "$server_pid")" = zferry ] || fail "it runs as $(ps -o user= -p "$server_pid")"
  score=$(exposure)
  awk -v score="$score" -v most=$exposure_max 'BEGIN { exit !(score > 0 && score <= most) }' ||
    fail "its exposure is $score, at most $exposure_max is allowed"
  # A mistake is told, and the former jobs go on.
  echo 'every = "soon"' >>/etc/zferry/zferry.toml
  systemctl reload $unit
  wait_until 30 "the mistake is told" journal_says 'the former configuration stays'
  has_copies 3
  systemctl stop $unit
  is Result success || fail "the scheduler was stopped with $(of_unit Result)"
  is ExecMainStatus 0 || fail "the scheduler ended with $(of_unit ExecMainStatus)"
  same_trees vault/in/data tank/data "$(snapshots vault/in/data | head -n 1 | cut -f 1)"
  no_holds_left
  unit=zferry-serve
  stop_unit
}

# The user zferry, as docs/least-privilege.md says.
knows_by_ssh() {
  install -d -m 700 -o zferry -g zferry /var/lib/zferry/.ssh
  install -m 600 -o zferry -g zferry "$work/key" /var/lib/zferry/.ssh/id_ed25519
  echo "$address $(cut -d ' ' -f 1,2 "$work/host.pub")" >/var/lib/zferry/.ssh/known_hosts
}

has_copies() { [ "$(snapshots vault/in/data 2>/dev/null | wc -l)" -ge "$1" ]; }

status=0
run_cases "$@" || status=$?
[ "${1:-}" = --case ] || cat /run/exposure
exit $status
