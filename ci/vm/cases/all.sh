#!/bin/bash
# All case files in one guest, so that it boots once; those of the folder systemd where that is the first process. Goes on
# after a failure; the last line is the sum of all files, `N passed, N failed`. FILES, names without `.sh` separated by
# blanks, chooses among them; CASE and PART choose cases (see run_cases).
set -u
cd "$(dirname "$0")" || exit 1
[ ! -d /run/systemd/system ] || cd systemd || exit 1

TALLY=$(mktemp)
export TALLY
export TURN=0
broken=0
for file in *.sh; do
  file=${file%.sh}
  case $file in lib | assert | all | demo) continue ;; esac
  if [ -n "${FILES:-}" ]; then
    [[ " $FILES " == *" $file "* ]] || continue
  fi
  before=$(wc -l <"$TALLY")
  bash "./$file.sh" || true
  # The next file goes on where this one stopped to deal out cases, so that files with one case are dealt out too.
  TURN=$((TURN + $(grep -c '^case_' "./$file.sh")))
  # A file that ends without its tally has not run its cases.
  if [ "$(wc -l <"$TALLY")" -eq "$before" ]; then
    broken=$((broken + 1))
    echo "not ok $file: the file broke off before its end"
  fi
done
awk -v broken="$broken" '
  { passed += $1; failed += $2 }
  END { failed += broken; print passed + 0 " passed, " failed + 0 " failed"; exit failed > 0 || passed == 0 }
' "$TALLY"
