#!/usr/bin/env bash
# Starts and stops a PostgreSQL 15 from Debian's packages, which stands in for CockroachDB in tests: the same protocol and driver.
#
#   deployments/local/postgres.sh start     prints POSTGRES_URL=… when it answers
#   deployments/local/postgres.sh database NAME   the same, and makes a database of that name; POSTGRES_URL names it
#   deployments/local/postgres.sh drop NAME       deletes that database, whoever uses it
#   deployments/local/postgres.sh crash     ends it as a crash would: it recovers at the next start
#   deployments/local/postgres.sh fetch     installs what start needs, and starts nothing
#   deployments/local/postgres.sh stop      stops what start began
#   deployments/local/postgres.sh status    prints POSTGRES_URL=… and succeeds if it runs
#   deployments/local/postgres.sh clean     stops, and deletes the data
#
# Data and log are under build/postgres (POSTGRES_DIR). It listens on POSTGRES_PORT (the first free one from 15432 on) of the
# loopback address POSTGRES_HOST (127.0.0.1) alone, with the further settings of POSTGRES_OPTIONS (-c name=value …). It lets every local user
# in, and does not wait for the disk: for tests, and nothing else. Started twice, also at the same time, it says where the first one is. As root it installs the packages where they are missing, and runs as the user postgres, as PostgreSQL demands.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
host=${POSTGRES_HOST:-127.0.0.1}
dir=${POSTGRES_DIR:-$root/build/postgres}
bin=/usr/lib/postgresql/15/bin

# at PORT: where the server is from now on.
at() {
  port=$1
  url="postgres://postgres@$host:$port/postgres?sslmode=disable"
}
at "${POSTGRES_PORT:-$(cat "$dir/port" 2>/dev/null || echo 15432)}"

fail() { echo "postgres.sh: $*" >&2; exit 1; }

# as_owner runs a command as the user who owns the server.
as_owner() {
  if [[ $(id -u) == 0 ]]; then
    (cd / && exec setpriv --reuid=postgres --regid=postgres --init-groups env -i PATH="$PATH" LANG=C.UTF-8 "$@")
  else
    "$@"
  fi
}

fetch() {
  [[ -x $bin/postgres ]] && return
  command -v apt-get >/dev/null || fail 'PostgreSQL 15 is missing: install it'
  [[ $(id -u) == 0 ]] || fail 'PostgreSQL 15 is missing: apt-get install postgresql-15'
  # Debian would start a cluster of its own.
  mkdir -p /etc/postgresql-common
  [[ -f /etc/postgresql-common/createcluster.conf ]] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql-15; } >&2 ||
    fail 'PostgreSQL 15 cannot be installed from the packages'
}

alive() { as_owner "$bin/pg_ctl" status -D "$dir/data" >/dev/null 2>&1; }

# free_port is the first port from 15432 on that nobody answers on: another checkout may have a server of its own.
free_port() {
  local p
  for p in $(seq 15432 15531); do
    (exec 3<>"/dev/tcp/$host/$p") 2>/dev/null || { echo "$p"; return; }
  done
  fail 'no free port from 15432 to 15531: set POSTGRES_PORT'
}

answers() { as_owner "$bin/pg_isready" -q -h "$host" -p "$port"; }

make_cluster() {
  [[ -f $dir/data/PG_VERSION ]] && return
  rm -rf "$dir/data"
  # A collation that is not the order of bytes: what relies on that order by accident fails here.
  as_owner "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --locale-provider=icu --icu-locale=en-US >"$dir/initdb.log" 2>&1 ||
    fail "initdb: see $dir/initdb.log"
  echo 'host all all 127.0.0.0/8 trust' >>"$dir/data/pg_hba.conf" # POSTGRES_HOST
}

start() {
  fetch
  mkdir -p "$dir"
  exec 9>"$dir/.lock"
  flock 9 # tests of several packages start it at once
  if ! alive; then
    [[ $(id -u) != 0 ]] || chown postgres: "$dir"
    as_owner test -x "$dir" || fail "the user postgres cannot enter $dir: set POSTGRES_DIR to a folder that it can"
    make_cluster
    [[ -n ${POSTGRES_PORT:-} ]] || at "$(free_port)"
    echo "$port" >"$dir/port"
    # In a session of its own, so that the end of the terminal or of make does not end it; without the lock.
    as_owner "$bin/pg_ctl" start -D "$dir/data" -l "$dir/postgres.log" -W -o "\
-c listen_addresses=$host -c port=$port -c unix_socket_directories=$dir -c max_connections=300 -c shared_buffers=256MB \
-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_wal_size=1GB -c max_pred_locks_per_transaction=256 \
-c autovacuum_naptime=10s ${POSTGRES_OPTIONS:-}" >/dev/null 9>&- || fail "start: see $dir/postgres.log"
  fi
  local missed=0
  for _ in $(seq 240); do
    answers && break
    # On a busy machine it takes seconds until a server that was launched has written its pid file.
    if alive; then missed=0; else missed=$((missed + 1)); fi
    [[ $missed -lt 60 ]] || fail "it ended: see $dir/postgres.log"
    sleep 0.25
  done
  status
}

stop() {
  [[ -x $bin/pg_ctl && -d $dir/data ]] || return 0
  alive || return 0
  as_owner "$bin/pg_ctl" stop -D "$dir/data" -m fast >/dev/null
}

crash() { as_owner "$bin/pg_ctl" stop -D "$dir/data" -m immediate >/dev/null; }

status() {
  [[ -x $bin/pg_ctl ]] && alive && answers || { echo 'postgres.sh: not running' >&2; return 1; }
  echo "POSTGRES_URL=$url"
}

# query SQL: runs it in the database postgres.
query() { as_owner "$bin/psql" -h "$host" -p "$port" -U postgres -X -q -A -t -v ON_ERROR_STOP=1 -c "$1"; }

database() {
  [[ $1 =~ ^[a-z][a-z0-9_]*$ ]] || fail "database '$1': want lower-case letters, digits and _"
  start >/dev/null
  [[ $(query "SELECT 1 FROM pg_database WHERE datname = '$1'") == 1 ]] || query "CREATE DATABASE $1" || fail "database $1"
  echo "POSTGRES_URL=${url%/postgres\?*}/$1?${url#*\?}"
}

drop() {
  [[ $1 =~ ^[a-z][a-z0-9_]*$ ]] || fail "database '$1': want lower-case letters, digits and _"
  query "DROP DATABASE IF EXISTS $1 WITH (FORCE)"
}

case ${1:-} in
  start) start ;;
  database) database "${2:-}" ;;
  drop) drop "${2:-}" ;;
  crash) crash ;;
  fetch) mkdir -p "$dir"; exec 9>"$dir/.lock"; flock 9; fetch ;;
  stop) stop ;;
  status) status ;;
  clean) stop; rm -rf "$dir" ;;
  *) fail 'want start, database NAME, drop NAME, crash, fetch, stop, status or clean' ;;
esac
