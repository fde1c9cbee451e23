#!/bin/bash
# Builds Kubernetes' programs and the pause program from Debian's source package. Runs as root in a throw-away
# Debian bookworm container. /build is kept until the build has succeeded, so an interrupted build goes on where it
# was; the programs end up in /build/bin. Takes about 4 minutes on 2 cores.
set -euo pipefail
version=$1 # of Kubernetes, such as 1.20.2
work=/build
step() { echo "-- $*"; }

step "installing the compilers"
sed -i 's/^Types: deb$/Types: deb deb-src/; s/^deb \(.*\)$/deb \1\ndeb-src \1/' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends golang-go gcc libc6-dev dpkg-dev xz-utils

if [ ! -d $work/src ]; then
  step "unpacking the source"
  rm -rf $work/unpack && mkdir -p $work/unpack/src && cd $work/unpack
  apt-get source -q --download-only kubernetes
  ls kubernetes_*"$version"*.orig.tar.* >/dev/null || { echo "Debian's source package is not of $version" >&2; exit 1; }
  tar xf kubernetes_*.orig.tar.* -C src --strip-components=1
  # The reflect2 1.0.1 in the tree, compiled with Go 1.18 or newer, crashes the API server at the first custom
  # resource; 1.0.2 does not. The two have different sets of files, so the old ones go first.
  apt-get download -q golang-github-modern-go-reflect2-dev
  dpkg-deb -x golang-github-modern-go-reflect2-dev_*.deb reflect2
  target=src/vendor/github.com/modern-go/reflect2
  rm -f $target/*.go $target/*.s
  cp reflect2/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} $target/
  mv src $work/src
  rm -rf $work/unpack
fi

export GO111MODULE=off GOFLAGS= CGO_ENABLED=0 GOPATH=$work/gopath GOCACHE=$work/gocache
package=k8s.io/kubernetes
mkdir -p $GOPATH/src/k8s.io
ln -sfn $work/src $GOPATH/src/$package
cd $GOPATH/src/$package

# The API server does not link without this generated file, which the source package leaves out.
if [ ! -f pkg/generated/openapi/zz_generated.openapi.go ]; then
  step "generating the OpenAPI definitions"
  go build -o $work/openapi-gen $package/vendor/k8s.io/kube-openapi/cmd/openapi-gen
  inputs=$(grep -rlE '^// \+k8s:openapi-gen=' --include='*.go' pkg staging/src/k8s.io vendor/k8s.io |
    xargs -n1 dirname | sed "s#^staging/src/#vendor/#; s#^#$package/#" | sort -u | paste -sd,)
  $work/openapi-gen --v 0 -O zz_generated.openapi --go-header-file hack/boilerplate/boilerplate.generatego.txt \
    --output-base $work/openapi --output-package $package/pkg/generated/openapi \
    --input-dirs "$inputs" --report-filename $work/openapi-report
  cp $work/openapi/$package/pkg/generated/openapi/zz_generated.openapi.go pkg/generated/openapi/
fi

# Without the vendor prefix the linker ignores these names in silence.
stamps=
for variables in component-base/version client-go/pkg/version; do
  for stamp in gitVersion=v$version "gitMajor=${version%%.*}" "gitMinor=$(cut -d. -f2 <<<"$version")" gitTreeState=clean; do
    stamps+=" -X $package/vendor/k8s.io/$variables.$stamp"
  done
done
mkdir -p $work/bin
for program in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
  [ -x $work/bin/$program ] && continue
  step "compiling $program"
  go build -ldflags "-s -w$stamps" -o $work/bin/.$program $package/cmd/$program
  mv $work/bin/.$program $work/bin/$program
done
step "compiling pause"
gcc -Os -Wall -static -s -o $work/bin/.pause build/pause/linux/pause.c
mv $work/bin/.pause $work/bin/pause
