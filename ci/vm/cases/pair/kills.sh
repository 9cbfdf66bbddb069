#!/bin/bash
# kill -9 of zferry on either side or both, again and again, at moments left to chance.
. "$(dirname "$0")/lib.sh"

# kill_on SIDE: and nothing that it started stays behind.
kill_on() {
  on "$1" 'pkill -KILL -x zferry; wait_until 60 "zfs is gone" has_no_zfs' || fail "a zfs is left on $1"
}

# a_moment: until this attempt has sent some MiB, or only for a part of a second.
a_moment() {
  local goal
  if [ $((RANDOM % 4)) -eq 0 ]; then
    sleep 0.$((RANDOM % 10))
  else
    goal=$(($(on source sent) + ((1 + RANDOM % 6) << 20)))
    wait_until 60 "some MiB are sent" sent_or_ended $goal
  fi
}
sent_or_ended() { client_ended || [ "$(on source sent)" -ge "$1" ]; }

case_long_at_random_moments() {
  local number victim kills
  kills=20
  under_way $((16 + 8 * kills)) 16mbit --retry-for 10m
  for ((number = 1; number <= kills; number++)); do
    a_moment
    ! client_ended || break
    victim=$((RANDOM % 3))
    # 0: the client, 1: the server, 2: both
    [ $victim -eq 1 ] || kill_on source
    [ $victim -eq 0 ] || kill_on target
    [ $victim -eq 0 ] || on target start_server
    [ $victim -eq 1 ] || on source 'start_client --retry-for 10m'
  done
  note "$((number - 1)) kills"
  on source 'narrow 1gbit'
  client_ends 0
  said source 'had been sent before' client
  alike one
}

run_cases "$@"
