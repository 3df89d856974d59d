#!/usr/bin/env bash
# What successive halving finds, and with how much of the learning, beside learning all trials in full:
# `benches/search/halving.sh TABLE.csv TARGET [TRIALS]`.
set -euo pipefail
table=$(realpath "$1") target=$2 trials=${3:-64}
cd "$(dirname "$0")/../.."
cargo build --release --bin dml
dml=$PWD/target/release/dml
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cd "$work"
for strategy in halving random; do
    # The same seed: both try the same points.
    "$dml" tune "$table" --target "$target" --strategy "$strategy" --trials "$trials" --name "$strategy" --json > "$strategy.json"
done
python3 - <<'PYTHON'
import json

studies = [json.load(open(f"{name}.json")) for name in ("halving", "random")]
for study in studies:
    best = study["leaders"][0]
    print(f'{study["strategy"]}: {study["rounds"]} rounds, {study["metric"]} {best["score"]:.5g} of trial {best["number"]}')
print(f'rounds: {studies[0]["rounds"] / studies[1]["rounds"]:.3f} of those in full')
PYTHON
