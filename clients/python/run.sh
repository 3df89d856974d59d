#!/usr/bin/env bash
# Tests the client in Python against a cluster of its own: `bash clients/python/run.sh`. Wants python3 with venv, and PyPI.
set -euo pipefail
. "$(dirname "$0")/../../tests/prepare.sh"
packages pytest mypy pandas scikit-learn
export DML_TEST_URL=http://127.0.0.1:7495 PYTHONPATH=$root/clients/python PYTHONDONTWRITEBYTECODE=1
cluster "$DML_TEST_URL"
cd "$work"
"$python" -m mypy --cache-dir "$work/mypy" --ignore-missing-imports "$root/clients/python/dml"
"$python" -m pytest -q -p no:cacheprovider "$root/clients/python/tests"
