#!/usr/bin/env bash
# How many trivial trials a second three db nodes and two workers on this machine make, each score durable and copied:
# `cargo build --release --bins && benches/search/rate.sh [TRIALS]`.
set -euo pipefail
cd "$(dirname "$0")/../.."
trials=${1:-1000} programs=$PWD/target/release table=$PWD/data/penguins.csv
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -r "$work"' EXIT
join=(--join 127.0.0.1:7461 --join 127.0.0.1:7462 --join 127.0.0.1:7463)
for n in 1 2 3; do
    "$programs/db" --listen 127.0.0.1:746$n "${join[@]}" --data "$work/db$n" >"$work/db$n.log" 2>&1 &
done
for n in 1 2; do
    "$programs/worker" --listen 127.0.0.1:747$n "${join[@]}" --cache "$work/cache$n" >"$work/worker$n.log" 2>&1 &
done
url=http://127.0.0.1:7471
for _ in $(seq 100); do curl -sf "$url/readyz" >/dev/null && break || sleep 0.1; done
sleep 2
curl -sf -T "$table" -X POST -H 'content-type: text/csv' "$url/v1/datasets?name=penguins" >/dev/null
study='{"dataset": "penguins", "target": "species", "name": "rate", "strategy": "random", "trials": '$trials',
  "models": [{"kind": "decision_tree", "params": {"max_depth": 1}, "space": {"min_samples_leaf": {"low": 1, "high": 1000000}}}]}'
start=$(date +%s.%N)
curl -sf -X POST -H 'content-type: application/json' -d "$study" "$url/v1/studies" >/dev/null
curl -sf "$url/v1/studies/rate?wait=300s" >"$work/study.json"
end=$(date +%s.%N)
python3 - "$work/study.json" "$start" "$end" <<'PYTHON'
import json, sys

study, took = json.load(open(sys.argv[1])), float(sys.argv[3]) - float(sys.argv[2])
print(f'{study["state"]}: {study["done"]} trials, {study["failed"]} failed, {took:.2f} s, {study["done"] / took:.0f} a second')
PYTHON
