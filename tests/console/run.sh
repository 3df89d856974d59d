#!/usr/bin/env bash
# Walks the console in a real Chromium, over two db nodes and a worker: `bash tests/console/run.sh [DIRECTORY]`, which
# keeps the screenshots. Wants python3 with venv, PyPI, and chromium with chromedriver (Debian: chromium-driver).
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$work"' EXIT
# With the features that all tests have together, so that nothing is compiled once more.
cargo build --locked --manifest-path "$root/Cargo.toml" --workspace --bins --examples
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check selenium axe-selenium-python
programs=${CARGO_TARGET_DIR:-$root/target}/debug
"$programs/db" --log warn --listen 127.0.0.1:7481 --data "$work/db1" &
"$programs/db" --log warn --listen 127.0.0.1:7482 --data "$work/db2" --join 127.0.0.1:7481 &
second=$!
"$programs/worker" --log warn --listen 127.0.0.1:7480 --join 127.0.0.1:7481 --join 127.0.0.1:7482 &
SE_OFFLINE=true "$work/venv/bin/python" "$root/tests/console/walk.py" http://127.0.0.1:7480 "$root/data/penguins.csv" "$second" "${1:-$work}"
