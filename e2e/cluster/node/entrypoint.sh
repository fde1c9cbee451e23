#!/bin/bash
# Starts and supervises the programs of one container of the local cluster, under docker's init.
# ROLE is control-plane or node; the other settings come from the environment too (see containers.ts).
# Log files are in /var/log/koschei, process ids in /run/koschei/<program>.pid. A program is restarted when it ends,
# but only as long as there is no file /run/koschei/<program>.hold.
set -u
logs=/var/log/koschei
keys=/etc/koschei
runtime=/run/koschei
mkdir -p $logs $runtime

# The container is not --privileged, because that needs CAP_SYS_RESOURCE, which not every machine can give. So what
# docker mounted read-only is made writable here. A remount without `bind` would change the hierarchy itself.
writable=rw,nosuid,nodev,noexec
mount -o remount,bind,$writable /sys
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
  if mountpoint -q "$hierarchy"; then mount -o remount,bind,$writable "$hierarchy"; fi
done
mount --make-rshared /
# With the unified hierarchy only a group without processes can hand its controllers down.
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  mkdir -p /sys/fs/cgroup/init
  while read -r pid; do echo "$pid" > /sys/fs/cgroup/init/cgroup.procs; done < /sys/fs/cgroup/cgroup.procs 2>/dev/null
  sed 's/\([^ ]\+\)/+\1/g' /sys/fs/cgroup/cgroup.controllers > /sys/fs/cgroup/cgroup.subtree_control
fi

# The kubelet insists on these settings, which belong to the whole machine. It is shown files that hold what it wants.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  shown=$runtime/sysctl/${setting%%=*}
  mkdir -p "$(dirname "$shown")"
  echo "${setting#*=}" > "$shown"
  mount --bind "$shown" "/proc/sys/${setting%%=*}"
done
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
  net.ipv4.conf.all.route_localnet=1
sysctl -qw net.bridge.bridge-nf-call-iptables=1 || true

supervise() { # name command...
  local name=$1 child
  shift
  (
    trap 'kill $child 2>/dev/null; exit 0' TERM
    while :; do
      while [ -e $runtime/$name.hold ]; do sleep 0.1; done
      "$@" >> $logs/$name.log 2>&1 &
      child=$!
      echo $child > $runtime/$name.pid
      wait $child
      echo "== $(date -u +%FT%TZ) $name ended with code $?" >> $logs/$name.log
      sleep 0.5
    done
  ) &
}

# The pods of other nodes. Repeated, because a disconnected network takes its routes along.
keep_routes() {
  while :; do
    ip -force -batch - <<<"$ROUTES" >/dev/null 2>&1
    sleep 2
  done
}
keep_routes &

kube_proxy() {
  supervise kube-proxy kube-proxy --kubeconfig=$keys/kube-proxy.kubeconfig --hostname-override="$NAME" \
    --proxy-mode=iptables --cluster-cidr="$POD_SUBNET_OF_ALL" --bind-address="$IP" \
    --metrics-bind-address=127.0.0.1:10249 --iptables-min-sync-period=0s --oom-score-adj=0 \
    --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
}

control_plane() {
  supervise etcd etcd --name=control-plane --data-dir=/var/lib/etcd --log-level=warn \
    --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
    --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
    --initial-cluster=control-plane=http://127.0.0.1:2380 \
    --auto-compaction-mode=periodic --auto-compaction-retention=10m
  supervise kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address="$IP" --bind-address=0.0.0.0 --secure-port=6443 \
    --tls-cert-file=$keys/apiserver.crt --tls-private-key-file=$keys/apiserver.key --client-ca-file=$keys/ca.crt \
    --kubelet-certificate-authority=$keys/ca.crt --kubelet-client-certificate=$keys/apiserver-kubelet.crt \
    --kubelet-client-key=$keys/apiserver-kubelet.key --kubelet-preferred-address-types=InternalIP,Hostname \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=$keys/sa.pub \
    --service-account-signing-key-file=$keys/sa.key --service-cluster-ip-range="$SERVICE_SUBNET" \
    --requestheader-client-ca-file=$keys/front-ca.crt --requestheader-allowed-names=front-proxy-client \
    --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
    --requestheader-username-headers=X-Remote-User --enable-aggregator-routing=true \
    --proxy-client-cert-file=$keys/front-proxy.crt --proxy-client-key-file=$keys/front-proxy.key \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --default-not-ready-toleration-seconds=10 --default-unreachable-toleration-seconds=10
  local manager=$keys/kube-controller-manager.kubeconfig scheduler=$keys/kube-scheduler.kubeconfig
  supervise kube-controller-manager kube-controller-manager --kubeconfig=$manager \
    --authentication-kubeconfig=$manager --authorization-kubeconfig=$manager --bind-address=127.0.0.1 \
    --leader-elect=false --use-service-account-credentials=true \
    --service-account-private-key-file=$keys/sa.key --root-ca-file=$keys/ca.crt \
    --cluster-signing-cert-file=$keys/ca.crt --cluster-signing-key-file=$keys/ca.key \
    --cluster-cidr="$POD_SUBNET_OF_ALL" --allocate-node-cidrs=false \
    --node-monitor-period=1s --node-monitor-grace-period=8s
  supervise kube-scheduler kube-scheduler --kubeconfig=$scheduler --authentication-kubeconfig=$scheduler \
    --authorization-kubeconfig=$scheduler --bind-address=127.0.0.1 --leader-elect=false
  kube_proxy # so that the API server reaches webhooks behind Services
}

worker() {
  mkdir -p /etc/cni/net.d /etc/containerd
  cat > /etc/cni/net.d/10-koschei.conflist <<END
{ "cniVersion": "0.4.0", "name": "koschei", "plugins": [
  { "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "mtu": 1500,
    "ipam": { "type": "host-local", "ranges": [[{ "subnet": "$POD_SUBNET" }]], "routes": [{ "dst": "0.0.0.0/0" }] } },
  { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true } ] }
END
  cat > /etc/containerd/config.toml <<END
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:3.2"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
END
  : > $runtime/resolv.conf # pods inherit no search domains
  cat > $runtime/kubelet.yaml <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: { anonymous: { enabled: false }, webhook: { enabled: true }, x509: { clientCAFile: $keys/ca.crt } }
authorization: { mode: Webhook }
tlsCertFile: $keys/kubelet.crt
tlsPrivateKeyFile: $keys/kubelet.key
cgroupDriver: cgroupfs
cgroupRoot: /
failSwapOn: false
oomScoreAdj: 0
clusterDNS: [$IP]
clusterDomain: cluster.local
resolvConf: $runtime/resolv.conf
maxPods: 110
systemReserved: { memory: "$RESERVED_MEMORY", cpu: "0" }
imageGCHighThresholdPercent: 100
evictionHard: { memory.available: 200Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0% }
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8
END
  NODE_NAME=$NAME NODE_IP=$IP CERTIFICATES=$keys supervise node-services node /opt/koschei/node-services.mjs
  supervise containerd containerd
  until ctr version >/dev/null 2>&1; do sleep 0.1; done
  for archive in /opt/images/*.tar; do ctr -n k8s.io images import "$archive" >> $logs/images.log 2>&1; done
  supervise kubelet kubelet --config=$runtime/kubelet.yaml --kubeconfig=$keys/kubelet.kubeconfig \
    --hostname-override="$NAME" --node-ip="$IP" --node-labels="topology.kubernetes.io/zone=$ZONE" \
    --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock \
    --network-plugin=cni --pod-infra-container-image=localhost/pause:3.2
  kube_proxy
}

trap 'kill $(jobs -p) 2>/dev/null; exit 0' TERM INT
if [ "$ROLE" = control-plane ]; then control_plane; else worker; fi
wait
