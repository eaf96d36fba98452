#!/usr/bin/env bash
# Runs the pipeline as processes of its own stages on real engines, all on loopback: for a look at it as it is in production, and for tests.
#
#   deployments/local/cluster.sh engines   starts Kafka, PostgreSQL and the ClickHouse engine; prints how to reach them
#   deployments/local/cluster.sh up        those, a simulator of APNs and FCM, and the stages: two ingests, two routers, two senders for each
#                                          platform, a projector and analytics; returns when all are ready, and prints their addresses
#   deployments/local/cluster.sh status    prints what runs, and fails unless all of it does
#   deployments/local/cluster.sh down      stops the stages and the simulator; the engines go on
#   deployments/local/cluster.sh engines-down   stops what this script started of the engines
#   deployments/local/cluster.sh clean     stops all, and deletes the data, also that of the engines
#
# An engine that the environment names is used and not started: KAFKA_BROKERS, COCKROACH_URL (or POSTGRES_URL), CLICKHOUSE_URL. Otherwise
# kafka.sh, postgres.sh and chdb.sh, and their variables, do it; CLUSTER_KAFKA=3 starts three brokers.
#
# Everything is under build/cluster (CLUSTER_DIR): campanile.yaml holds the settings (CAMPANILE_CONFIG=build/cluster/campanile.yaml
# build/campanile app list), <process>.pid and <process>.log are one for each process. Ports are CLUSTER_PORT (18800) and the hundred after it.
# Run again, it starts what is missing.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/deployments/local
dir=${CLUSTER_DIR:-$root/build/cluster}
port=${CLUSTER_PORT:-18800}
binary=${CLUSTER_BINARY:-$root/build/campanile}
prefix=${CLUSTER_PREFIX:-}             # of topics and groups, to share a Kafka
database=${CLUSTER_DATABASE:-campanile} # of PostgreSQL
partitions=${CLUSTER_PARTITIONS:-8}    # of each topic: enough to share, and few for one machine
config=$dir/campanile.yaml

# The stages: name, arguments. The nth has its ops port at port+50+n; an ingest has its API at port+n.
stages='ingest-1 ingest
ingest-2 ingest
router-1 router
router-2 router
apns-1 sender --platform apns
apns-2 sender --platform apns
fcm-1 sender --platform fcm
fcm-2 sender --platform fcm
projector projector
analytics analytics'

fail() { echo "cluster.sh: $*" >&2; exit 1; }

# alive NAME: the process runs; the pid must still be that of one of this directory.
alive() {
  local pid
  pid=$(cat "$dir/$1.pid" 2>/dev/null) || return 1
  kill -0 "$pid" 2>/dev/null && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$dir/"
}

# launch NAME COMMAND…: in a session of its own, so that the end of the terminal or of make does not end it.
launch() {
  local name=$1
  shift
  setsid "$@" >>"$dir/$name.log" 2>&1 </dev/null 9>&- &
  echo $! >"$dir/$name.pid"
}

# await NAME WHAT SECONDS COMMAND…: until the command succeeds or the process ends.
await() {
  local name=$1 what=$2 tries=$(($3 * 5))
  shift 3
  until "$@"; do
    alive "$name" || fail "$name ended: see $dir/$name.log"
    [[ $((tries -= 1)) -gt 0 ]] || fail "$name: not $what in time: see $dir/$name.log"
    sleep 0.2
  done
}

# terminate NAME…: asks all, waits for each, and kills what does not end.
terminate() {
  local name
  for name in "$@"; do alive "$name" && kill "$(cat "$dir/$name.pid")"; done || true
  for name in "$@"; do
    for _ in $(seq 300); do alive "$name" || break; sleep 0.1; done
    alive "$name" && kill -KILL "$(cat "$dir/$name.pid")"
    rm -f "$dir/$name.pid"
  done || true
}

# ready PORT: its /readyz says 200.
ready() {
  local line
  exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
  printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
  IFS= read -r line <&3 || line=
  exec 3>&-
  [[ $line == *' 200 '* ]]
} 2>/dev/null

value() { sed -n "s/^$1=//p"; }

start_engines() {
  local out
  kafka=${KAFKA_BROKERS:-}
  if [[ -z $kafka ]]; then
    out=$("$here/kafka.sh" start "${CLUSTER_KAFKA:-1}" 9>&-) || fail 'Kafka does not start'
    kafka=$(value KAFKA_BROKERS <<<"$out")
  fi
  store=${COCKROACH_URL:-${POSTGRES_URL:-}}
  if [[ -z $store ]]; then
    out=$("$here/postgres.sh" database "$database" 9>&-) || fail 'PostgreSQL does not start'
    store=$(value POSTGRES_URL <<<"$out")
  fi
  clickhouse=${CLICKHOUSE_URL:-}
  if [[ -z $clickhouse ]]; then
    out=$("$here/chdb.sh") || fail 'the ClickHouse engine cannot be fetched'
    if ! alive engine; then
      : >"$dir/engine.log"
      launch engine "$binary" analytics-engine --dir "$dir/clickhouse" --key-file "$dir/clickhouse.key" --listen "127.0.0.1:$((port + 99))" \
        --clickhouse-library "$(value CHDB_LIB_PATH <<<"$out")"
    fi
    await engine answering 60 grep -q '^CLICKHOUSE_URL=' "$dir/engine.log"
    clickhouse=$(value CLICKHOUSE_URL <"$dir/engine.log" | tail -1)
  fi
}

# from_simulator KEY: a string of the file that a simulator leaves.
from_simulator() { sed -n "s/^ *\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" "$dir/simulator/simulator.json"; }

configure() {
  local replicas
  replicas=$(tr ',' '\n' <<<"$kafka" | grep -c .)
  (umask 077
  [[ -s $dir/master.key ]] || "$binary" key-file >"$dir/master.key"
  [[ -s $dir/hash.key ]] || "$binary" key-file --hash >"$dir/hash.key"
  cat >"$config" <<YAML
data: $dir/data
kafka:
  brokers: [$kafka]
  prefix: "$prefix"
  partitions: $partitions
  replication: $((replicas < 3 ? 1 : 3))
cockroach:
  url: "$store"
clickhouse:
  url: "$clickhouse"
vault:
  master_key_file: $dir/master.key
  hash_key_file: $dir/hash.key
apns:
  host: $(from_simulator apns)
  sandbox_host: $(from_simulator apns_sandbox)
  ca: $(from_simulator ca)
fcm:
  endpoint: $(from_simulator fcm)
  ca: $(from_simulator ca)
YAML
)
}

up() {
  local n=0 name arguments
  start_engines
  if ! alive simulator; then
    rm -f "$dir/simulator/simulator.json"
    launch simulator "$binary" simulator --dir "$dir/simulator"
  fi
  await simulator ready 30 test -s "$dir/simulator/simulator.json"
  configure
  "$binary" --config "$config" topics apply >"$dir/topics.log" 2>&1 || fail "the topics: see $dir/topics.log"
  while read -r name arguments; do
    n=$((n + 1))
    alive "$name" && continue
    : >"$dir/$name.log"
    # shellcheck disable=SC2086 # the arguments are several words
    launch "$name" "$binary" $arguments --config "$config" --http-listen "127.0.0.1:$((port + n))" --ops-listen "127.0.0.1:$((port + 50 + n))"
  done <<<"$stages"
  n=0
  while read -r name arguments; do
    n=$((n + 1))
    await "$name" ready 60 ready $((port + 50 + n))
  done <<<"$stages"
  status
}

status() {
  local n=0 name arguments all=0
  while read -r name arguments; do
    n=$((n + 1))
    if alive "$name" && ready $((port + 50 + n)); then
      if [[ $arguments == ingest ]]; then echo "$name http://127.0.0.1:$((port + n))"; fi
      echo "$name.ops http://127.0.0.1:$((port + 50 + n))"
    else
      echo "$name does not run, or is not ready" >&2
      all=1
    fi
  done <<<"$stages"
  [[ $all == 0 ]] && echo "CAMPANILE_CONFIG=$config"
  return $all
}

down() {
  # shellcheck disable=SC2046 # names are single words
  terminate $(awk '{print $1}' <<<"$stages")
  terminate simulator
}

engines_down() {
  terminate engine
  [[ -n ${KAFKA_BROKERS:-} ]] || "$here/kafka.sh" stop
  [[ -n ${COCKROACH_URL:-${POSTGRES_URL:-}} ]] || "$here/postgres.sh" stop
}

mkdir -p "$dir"
exec 9>"$dir/.lock"
flock 9
case ${1:-} in
  engines)
    start_engines
    printf 'KAFKA_BROKERS=%s\nPOSTGRES_URL=%s\nCLICKHOUSE_URL=%s\n' "$kafka" "$store" "$clickhouse"
    ;;
  up) up ;;
  status) status ;;
  down) down ;;
  engines-down) engines_down ;;
  clean)
    down
    engines_down
    rm -rf "$dir"
    [[ -n ${KAFKA_BROKERS:-} ]] || "$here/kafka.sh" clean
    [[ -n ${COCKROACH_URL:-${POSTGRES_URL:-}} ]] || "$here/postgres.sh" clean
    ;;
  *) fail 'want engines, up, status, down, engines-down or clean' ;;
esac
