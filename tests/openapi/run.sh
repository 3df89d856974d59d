#!/usr/bin/env bash
# Asks a running worker whatever its OpenAPI document allows and what it does not, and compares the answers with the
# document: `bash tests/openapi/run.sh`. Wants python3 with venv, and PyPI.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$work"' EXIT
# With the features that all tests have together, so that nothing is compiled once more.
cargo build --locked --manifest-path "$root/Cargo.toml" --workspace --bins --examples
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check schemathesis
dml=${CARGO_TARGET_DIR:-$root/target}/debug/dml
url=http://127.0.0.1:7490
"$dml" --data "$work/data" up --listen "${url#http://}" >"$work/log" 2>&1 &
for _ in $(seq 100); do curl -sf "$url/readyz" >/dev/null && break || sleep 0.1; done
# Something to be found: by this name things of all kinds are looked for too.
"$dml" --cluster "$url" train "$root/data/penguins.csv" --target species --name penguins --model logistic >/dev/null
cd "$work"
"$work/venv/bin/schemathesis" run "$url/openapi.json" --max-examples "${1:-40}" --seed 1 --generation-database none \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --exclude-path /v1/trainings/{id}/events
