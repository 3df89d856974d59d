#!/usr/bin/env bash
# Tests the client in Python against a cluster of its own: `bash clients/python/run.sh`. Wants python3 with venv, and PyPI.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$work"' EXIT
# With the features that all tests have together, so that nothing is compiled once more.
cargo build --locked --manifest-path "$root/Cargo.toml" --workspace --bins --examples
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pytest mypy pandas scikit-learn
export DML_TEST_URL=http://127.0.0.1:7495 PYTHONPATH=$root/clients/python PYTHONDONTWRITEBYTECODE=1
"${CARGO_TARGET_DIR:-$root/target}/debug/dml" --data "$work/data" up --listen "${DML_TEST_URL#http://}" >"$work/log" 2>&1 &
for _ in $(seq 100); do curl -sf "$DML_TEST_URL/readyz" >/dev/null && break || sleep 0.1; done
cd "$work"
"$work/venv/bin/mypy" --cache-dir "$work/mypy" --ignore-missing-imports "$root/clients/python/dml"
"$work/venv/bin/python" -m pytest -q -p no:cacheprovider "$root/clients/python/tests"
