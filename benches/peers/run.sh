#!/usr/bin/env bash
# Times DML and other libraries side by side on the same two cores and the same tables, prints a table of ratios, and
# writes docs/benchmarks.md (a run that is not the full one writes target/peers/benchmarks.md instead).
#   benches/peers/run.sh [--rows 1000000] [--repeat 3] [--only CASE]... [--diamonds FILE.csv] [--out FILE.md]
# Needs cargo, python3 and the package registries; whatever library cannot be had is left out, and said to be.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$PWD/target/peers
mkdir -p "$work"

if ! command -v python3 >/dev/null; then
    echo "python3 is not installed: it runs the comparison ('apt-get install python3 python3-venv')" >&2
    exit 1
fi
if [ ! -x "$work/venv/bin/pip" ] && ! python3 -m venv "$work/venv"; then
    rm -rf "$work/venv"
    echo "python3 cannot make a virtual environment ('apt-get install python3-venv')" >&2
    exit 1
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
if ! "$work/venv/bin/pip" install -q numpy; then
    echo "numpy cannot be installed: nothing can be compared without it" >&2
    exit 1
fi
# One after the other, so that the lack of one is not the lack of all.
for library in lightgbm xgboost scikit-learn polars pandas pyarrow catboost; do
    "$work/venv/bin/pip" install -q "$library" || echo "$library cannot be installed: it is left out" >&2
done
# Its package has the table of diamonds; nothing else of it is used.
"$work/venv/bin/pip" install -q --no-deps plotnine ||
    echo "plotnine cannot be installed: give the table of diamonds with --diamonds, or do without" >&2
if ! cargo build --release --locked --manifest-path benches/peers/linfa/Cargo.toml --target-dir "$work/linfa"; then
    rm -f "$work/linfa/release/linfa-peer"
    echo "linfa cannot be built: it is left out" >&2
fi

cargo bench --locked -p dml --bench peers --no-run
# As cargo names what it has built.
program=$(cargo bench --locked -p dml --bench peers --no-run --message-format json 2>/dev/null |
    grep -o '"executable":"[^"]*"' | tail -1 | cut -d'"' -f4)
exec "$work/venv/bin/python" benches/peers/compare.py --program "$program" --work "$work" "$@"
