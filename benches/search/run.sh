#!/usr/bin/env bash
# Searches beside Optuna: `bash benches/search/run.sh [TRIALS [SEEDS [TABLE.csv TARGET]]]`. With a table, parameters of gradient
# boosting are searched for.
set -euo pipefail
[ $# -lt 3 ] || set -- "$1" "$2" "$(realpath "$3")" "$4"
cd "$(dirname "$0")/../.."
venv=target/search-bench
[ -d "$venv" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install -q optuna; }
program=$(cargo bench -p dml --bench search --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))/\1/p')
"$venv/bin/python" benches/search/rival.py "$program" "$@"
