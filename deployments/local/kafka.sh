#!/usr/bin/env bash
# Starts and stops a real Apache Kafka (KRaft mode, no ZooKeeper) on loopback, from Maven Central. It needs Java 17 or
# newer and mvn: as root it installs Debian's packages where they are missing.
#
#   deployments/local/kafka.sh start [1|3]   one broker, or three; prints KAFKA_BROKERS=host:port,… when it answers
#   deployments/local/kafka.sh stop          stops what start began
#   deployments/local/kafka.sh status        prints KAFKA_BROKERS=… and succeeds if it runs
#   deployments/local/kafka.sh broker N      starts broker N of a cluster again, after it was killed, and returns when it answers
#   deployments/local/kafka.sh fetch         installs and fetches what start needs, and starts nothing
#   deployments/local/kafka.sh clean         stops, and deletes the data
#
# Data, pid files and logs are under build/kafka (KAFKA_DIR), the jars under build/kafka/libs. Ports are KAFKA_PORT (19092) and
# the ones after it, two for each broker, of the loopback address KAFKA_HOST (127.0.0.1). Started twice, also at
# the same time, it says where the first one is.
#
# KAFKA_TLS_PEM, a file with a private key (PKCS #8) and its certificate, adds a listener with TLS and SASL at KAFKA_PORT+8 (and +10, +12),
# for the user KAFKA_USER (campanile) with KAFKA_PASSWORD, by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512: KAFKA_SECURE_BROKERS=… is printed
# too. It holds for data that start makes.
set -euo pipefail

version=${KAFKA_VERSION:-4.4.0}
log4j=2.24.3
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=${KAFKA_DIR:-$root/build/kafka}
port=${KAFKA_PORT:-19092}
host=${KAFKA_HOST:-127.0.0.1}
heap=${KAFKA_HEAP:-512m}
pem=${KAFKA_TLS_PEM:-}
user=${KAFKA_USER:-campanile}
password=${KAFKA_PASSWORD:-}

fail() { echo "kafka.sh: $*" >&2; exit 1; }

# Broker n listens on port+2(n-1), and its controller on the next.
broker_port() { echo $((port + 2 * ($1 - 1))); }

# brokers OF [OFFSET]: where they listen, so far above their first ports.
brokers() {
  local list='' n
  for n in $(seq "$1"); do list+="${list:+,}$host:$(($(broker_port "$n") + ${2:-0}))"; done
  echo "$list"
}

# alive N: broker N runs; the pid must still be that of a Kafka started on this directory.
alive() {
  local pid
  [[ -f $dir/$1.pid ]] || return 1
  pid=$(cat "$dir/$1.pid")
  kill -0 "$pid" 2>/dev/null && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "$dir/$1.properties"
}

nodes() { cat "$dir/nodes" 2>/dev/null || echo 0; }

# need COMMAND PACKAGE: the command is there, or can be had from Debian's packages.
need() {
  command -v "$1" >/dev/null && return
  [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || fail "$1 is missing: apt-get install $2"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$2"; } >&2 ||
    fail "$2 cannot be installed from the packages"
}

fetch() {
  need java default-jre-headless
  [[ -f $dir/libs/.complete-$version ]] && return
  need mvn maven
  rm -rf "$dir/libs" && mkdir -p "$dir/libs"
  cat >"$dir/pom.xml" <<POM
<project><modelVersion>4.0.0</modelVersion>
 <groupId>local</groupId><artifactId>kafka-dist</artifactId><version>1</version><packaging>pom</packaging>
 <dependencies>
  <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
  <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>$log4j</version></dependency>
  <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>$log4j</version></dependency>
 </dependencies></project>
POM
  mvn -q -B -Dstyle.color=never -f "$dir/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$dir/libs" >&2
  touch "$dir/libs/.complete-$version"
}

# configure N OF: writes broker N's settings.
configure() {
  local n=$1 of=$2 p voters='' i
  p=$(broker_port "$n")
  for i in $(seq "$of"); do voters+="${voters:+,}$i@127.0.0.1:$(($(broker_port "$i") + 1))"; done
  cat >"$dir/$n.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$n
listeners=PLAINTEXT://$host:$p,CONTROLLER://127.0.0.1:$((p + 1))
advertised.listeners=PLAINTEXT://$host:$p
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
controller.quorum.voters=$voters
log.dirs=$dir/data-$n
auto.create.topics.enable=false
default.replication.factor=$of
min.insync.replicas=$(((of + 1) / 2))
offsets.topic.replication.factor=$of
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$of
transaction.state.log.min.isr=$(((of + 1) / 2))
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$of
share.coordinator.state.topic.min.isr=$(((of + 1) / 2))
group.initial.rebalance.delay.ms=0
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
PROPERTIES
  [[ -z $pem ]] || secure "$p" >>"$dir/$n.properties"
}

# secure PORT: the settings of a listener with TLS and SASL; of two lines of one setting, the later counts.
secure() {
  local sasl=org.apache.kafka.common.security listener=listener.name.sasl_ssl
  cat <<PROPERTIES
listeners=PLAINTEXT://$host:$1,SASL_SSL://$host:$(($1 + 8)),CONTROLLER://127.0.0.1:$(($1 + 1))
advertised.listeners=PLAINTEXT://$host:$1,SASL_SSL://$host:$(($1 + 8))
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
$listener.ssl.keystore.type=PEM
$listener.ssl.keystore.location=$pem
$listener.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
$listener.plain.sasl.jaas.config=$sasl.plain.PlainLoginModule required user_$user="$password";
$listener.scram-sha-256.sasl.jaas.config=$sasl.scram.ScramLoginModule required;
$listener.scram-sha-512.sasl.jaas.config=$sasl.scram.ScramLoginModule required;
PROPERTIES
}

launch() {
  local n=$1
  local cp="$dir/libs/*"
  local java=(java -Xms256m "-Xmx$heap" -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:ActiveProcessorCount=2
    -Djava.awt.headless=true "-Dlog4j2.configurationFile=$dir/log4j2.properties" -cp "$cp")
  if [[ ! -f $dir/data-$n/meta.properties ]]; then
    local users=()
    [[ -z $pem ]] || users=(--add-scram "SCRAM-SHA-256=[name=$user,password=$password]" --add-scram "SCRAM-SHA-512=[name=$user,password=$password]")
    "${java[@]}" kafka.tools.StorageTool format -t "$(cat "$dir/cluster")" -c "$dir/$n.properties" "${users[@]}" >"$dir/$n.format.log" 2>&1 ||
      fail "format broker $n: see $dir/$n.format.log"
  fi
  # In a session of its own, so that the end of the terminal or of make does not end it; without the lock.
  setsid "${java[@]}" kafka.Kafka "$dir/$n.properties" >"$dir/$n.log" 2>&1 </dev/null 9>&- &
  echo $! >"$dir/$n.pid"
}

# answers N: broker N has told the others that it serves.
answers() { grep -q 'Kafka Server started' "$dir/$1.log" && (exec 3<>"/dev/tcp/$host/$(broker_port "$1")") 2>/dev/null; }

start() {
  local of=${1:-1} n
  [[ $of == 1 || $of == 3 ]] || fail "start $of: want 1 or 3 brokers"
  mkdir -p "$dir"
  exec 9>"$dir/.lock"
  flock 9 # tests of several packages start it at once
  if status >/dev/null 2>&1; then
    [[ $(nodes) == "$of" ]] || fail "$(nodes) brokers run: stop them first"
    status
    return
  fi
  stop # what is left of an incomplete one
  fetch
  if [[ $(nodes) != "$of" ]]; then # another quorum cannot use the data
    rm -rf "$dir"/data-* "$dir/cluster"
  fi
  echo "$of" >"$dir/nodes"
  cat >"$dir/log4j2.properties" <<'LOG4J'
appender.c.type=Console
appender.c.name=C
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%d %p %c - %m%n
rootLogger.level=warn
rootLogger.appenderRef.c.ref=C
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=info
LOG4J
  [[ -f $dir/cluster ]] || java -cp "$dir/libs/*" "-Dlog4j2.configurationFile=$dir/log4j2.properties" kafka.tools.StorageTool random-uuid 2>/dev/null >"$dir/cluster"
  for n in $(seq "$of"); do configure "$n" "$of"; launch "$n"; done
  for n in $(seq "$of"); do await "$n"; done
  status
}

# await N: broker N answers.
await() {
  local n=$1 tries
  for tries in $(seq 120); do
    answers "$n" && return
    # Not alive: on a busy machine what was launched may not be java yet.
    kill -0 "$(cat "$dir/$n.pid")" 2>/dev/null || fail "broker $n ended: see $dir/$n.log"
    [[ $tries != 120 ]] || fail "broker $n does not answer after a minute: see $dir/$n.log"
    sleep 0.5
  done
}

# broker N: it is started again with its data.
broker() {
  [[ $1 =~ ^[123]$ && $1 -le $(nodes) ]] || fail "broker $1: there are $(nodes)"
  exec 9>"$dir/.lock"
  flock 9
  alive "$1" || launch "$1"
  await "$1"
}

stop() {
  local n pid
  for n in 1 2 3; do
    alive "$n" && kill "$(cat "$dir/$n.pid")"
  done || true
  for n in 1 2 3; do
    for _ in $(seq 60); do alive "$n" || break; sleep 0.5; done
    if alive "$n"; then pid=$(cat "$dir/$n.pid"); kill -KILL "$pid"; fi
    rm -f "$dir/$n.pid"
  done
}

status() {
  local n
  [[ $(nodes) != 0 ]] || { echo 'kafka.sh: not running' >&2; return 1; }
  for n in $(seq "$(nodes)"); do
    { alive "$n" && answers "$n"; } || { echo 'kafka.sh: not running' >&2; return 1; }
  done
  echo "KAFKA_BROKERS=$(brokers "$(nodes)")"
  [[ -z $pem ]] || echo "KAFKA_SECURE_BROKERS=$(brokers "$(nodes)" 8)"
}

case ${1:-} in
  start) start "${2:-1}" ;;
  stop) stop ;;
  status) status ;;
  broker) broker "${2:-}" ;;
  fetch) mkdir -p "$dir"; exec 9>"$dir/.lock"; flock 9; fetch ;;
  clean) stop; rm -rf "$dir"/data-* "$dir/cluster" "$dir/nodes" ;;
  *) fail 'want start [1|3], stop, status, broker N, fetch or clean' ;;
esac
