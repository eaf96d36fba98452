#!/usr/bin/env bash
# Checks the files under deployments/ as far as the tools of this machine go, and says which it lacks. Nothing is started or pulled.
set -euo pipefail
cd "$(dirname "$0")"
missing=()
has() { command -v "$1" > /dev/null || { missing+=("$1 ($2)"); return 1; }; }

if has promtool 'prometheus of Debian'; then
  promtool check rules prometheus/alerts.yaml
  promtool test rules prometheus/alerts_test.yaml
  promtool check config prometheus/prometheus.yaml > /dev/null
fi
if has systemd-analyze 'systemd'; then
  units=$(mktemp -d)
  trap 'rm -rf "$units"' EXIT
  cp systemd/*.service systemd/*.timer systemd/*.target "$units"
  sed -i 's#/usr/local/bin/campanile#/bin/true#' "$units"/*.service # verify wants the program to be there
  said=$(systemd-analyze verify "$units"/* 2>&1 | grep -F "$units" || true)
  [ -z "$said" ] || { echo "$said"; exit 1; }
  for unit in systemd/*.service; do
    systemd-analyze security --offline=true --threshold=30 --no-pager "$unit" > /dev/null || { echo "$unit: exposed more than 3.0"; exit 1; }
  done
  echo 'systemd units: verified, exposure at most 3.0 each'
fi
export CAMPANILE_DATABASE_PASSWORD=check
if docker compose version > /dev/null 2>&1; then
  docker compose -f compose.yaml config --quiet && echo 'compose.yaml: valid'
elif has docker-compose 'docker-compose of Debian, or the plugin'; then
  docker-compose -f compose.yaml config --quiet && echo 'compose.yaml: valid'
fi
for tool in "${missing[@]}"; do echo "not checked: $tool is not here"; done
