#!/usr/bin/env bash
# Small durable writes and the loss of a node, on three of our db nodes and on three members of etcd, side by side on
# this machine (Debian: apt-get install etcd-server).
#   benches/etcd.sh [writes] [failover]
set -euo pipefail
cd "$(dirname "$0")/.."
if ! ETCD=$(command -v etcd); then
    echo "etcd is not installed: 'apt-get install etcd-server', or take it from https://github.com/etcd-io/etcd" >&2
    exit 1
fi
export ETCD
"$ETCD" --version | head -1
[ $# -gt 0 ] || set -- writes failover
cargo build --release -p dml-bins
cargo bench -p dml --bench cluster -- "$@"
