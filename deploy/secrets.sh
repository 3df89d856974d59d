#!/bin/sh
# Makes the secrets of a cluster for the files beside this one: `deploy/secrets.sh [DIR]`, by dist/dml, or `dml` if that is
# not there. Swarm and Kubernetes are given cluster.pem from there, and compose.yaml mounts it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/secrets}
dml=$here/../dist/dml
[ -x "$dml" ] || dml=dml
(umask 077 && mkdir -p "$out")
"$dml" cluster init --out "$out"
# Compose mounts a file as it is, and programs in containers have another user. Nobody else comes into the directory.
chmod 700 "$out"
chmod 644 "$out/cluster.pem" "$out/admin.pem"
