#!/bin/bash
# What a guest of ci/vm/pair does from boot to power cut: brings its pool up, and then runs, one after the other, the
# commands that it finds as /share/NUMBER.sh. It must never run one twice: whatever was asked of it before the power
# went off has an answer, or nobody waits for it any more.
set -u
here=/host/cases/pair
. "$here/inside.sh"

if [ -e /share/pool ]; then
  zpool import -d /dev/vdb1 "$POOL" || echo "cannot import $POOL"
else
  make_pool && touch /share/pool
fi
# Whoever looks for what was left behind looks for what is younger.
touch /run/began
number=$(find /share -name '*.sh' | wc -l)
touch /share/up
while :; do
  number=$((number + 1))
  until [ -e "/share/$number.sh" ]; do
    pause 0.05
  done
  status=0
  bash "/share/$number.sh" >"/share/$number.out" 2>&1 </dev/null || status=$?
  echo "$status" >"/share/$number.new"
  mv "/share/$number.new" "/share/$number.status"
done
