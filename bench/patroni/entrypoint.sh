#!/bin/bash
# Starts and supervises the programs of one machine of the peer (bench/failover/patroni.ts sets the environment).
# A program that ends is started again after 0.5 s, but only as long as there is no file /run/peer/<program>.hold.
set -u
runtime=/run/peer
rm -rf $runtime
mkdir -p $runtime

if [ "$ROLE" = haproxy ]; then
  echo "$HAPROXY" > $runtime/haproxy.cfg
  exec haproxy -W -db -f $runtime/haproxy.cfg
fi

supervise() { # name command...
  local name=$1
  shift
  while :; do
    while [ -e $runtime/$name.hold ]; do sleep 0.1; done
    "$@" >> /var/log/$name.log 2>&1
    echo "== $(date -u +%FT%TZ) $name ended with code $?" >> /var/log/$name.log
    sleep 0.5
  done
}

install -d -m 0700 /data/etcd
install -d -m 0700 -o postgres -g postgres /data/postgres
# The same intervals as Koschei's own etcd has.
supervise etcd etcd --name="$NAME" --data-dir=/data/etcd \
  --listen-client-urls=http://0.0.0.0:2379 --advertise-client-urls="http://$IP:2379" \
  --listen-peer-urls="http://$IP:2380" --initial-advertise-peer-urls="http://$IP:2380" \
  --initial-cluster="$ETCD_MEMBERS" --heartbeat-interval=100 --election-timeout=500 \
  --auto-compaction-mode=periodic --auto-compaction-retention=5m &
supervise patroni setpriv --reuid=postgres --regid=postgres --init-groups patroni &
trap 'exit 0' TERM INT
wait
