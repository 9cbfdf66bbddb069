#!/bin/bash
# `zferry doctor` on a machine where everything is as it should be.
. "$(dirname "$0")/lib.sh"

case_says_what_there_is() {
  run 0 "${on_client[@]}" "$zferry" doctor
  said 'io_uring'
  said 'zfs'
  said "$(zfs version | head -n 1 | sed 's/^zfs-\([0-9.]*\).*/\1/')"
}

run_cases "$@"
