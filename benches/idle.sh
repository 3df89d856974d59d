#!/usr/bin/env bash
# Prints how long `dml up` takes to be ready, and its memory and processor time while idle.
#   cargo build --release && benches/idle.sh
set -euo pipefail
cd "$(dirname "$0")/.."
directory=$(mktemp -d)
trap 'kill $server 2>/dev/null || true; rm -rf "$directory"' EXIT
start=$(date +%s%N)
target/release/dml --data "$directory/data" up --listen 127.0.0.1:7397 >"$directory/log" 2>&1 &
server=$!
until curl -sf 127.0.0.1:7397/readyz >/dev/null; do sleep 0.005; done
echo "ready after $((($(date +%s%N) - start) / 1000000)) ms"
sleep 2
ticks() { awk '{ print $14 + $15 }' /proc/$server/stat; }
before=$(ticks); sleep 30; after=$(ticks)
echo "idle: $(awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" 'BEGIN { printf "%.2f", t / hz / 30 * 100 }') % of a core"
grep VmRSS /proc/$server/status
