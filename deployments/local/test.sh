#!/usr/bin/env bash
# Runs every test with the race detector and says at the end what was skipped and why. The tests start the engines that they need by
# the scripts beside this one, and those that did not run before are stopped at the end; CAMPANILE_SKIP_REAL=1 skips those tests.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build
begun=()
for engine in kafka postgres; do
  deployments/local/$engine.sh status >/dev/null 2>&1 || begun+=("$engine")
done
stop_engines() { for engine in "${begun[@]}"; do deployments/local/"$engine".sh stop; done; }
trap stop_engines EXIT
status=0
bin/gotestsum --format pkgname-and-test-fails --hide-summary=output --jsonfile build/test.json -- -race -timeout 25m "$@" ./... || status=$?
skipped=$(grep -c '"Action":"skip".*"Test":' build/test.json || true)
echo
if [ "$skipped" -gt 0 ]; then
  echo "$skipped tests were skipped:"
  grep -hE '"Action":"output"' build/test.json | grep -E -- '--- SKIP|SKIP:|\.go:[0-9]+: .*(skip|CAMPANILE_SKIP_REAL|cannot be)' |
    sed -E 's/.*"Output":"(.*)\\n"\}/  \1/' | sort -u
else
  echo "no test was skipped"
fi
exit "$status"
