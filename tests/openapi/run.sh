#!/usr/bin/env bash
# Asks a running worker whatever its OpenAPI document allows and what it does not, and compares the answers with the
# document: `bash tests/openapi/run.sh`. Wants python3 with venv, and PyPI.
set -euo pipefail
. "$(dirname "$0")/../prepare.sh"
packages schemathesis
url=http://127.0.0.1:7490
cluster "$url"
# Something to be found: by this name things of all kinds are looked for too.
"$programs/dml" --cluster "$url" train "$root/data/penguins.csv" --target species --name penguins --model logistic >/dev/null
cd "$work"
"$work/venv/bin/schemathesis" run "$url/openapi.json" --max-examples "${1:-40}" --seed 1 --generation-database none \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --exclude-path /v1/trainings/{id}/events
