#!/usr/bin/env bash
# Every kind that can be taken away as ONNX says the same in onnxruntime: `bash tests/onnx/run.sh [DIAMONDS.csv]`.
# Wants python3 with venv, and PyPI.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
diamonds=("${@:1:1}")
[ ${#diamonds[@]} -eq 0 ] || diamonds=("$(realpath "${diamonds[0]}")")
# With the features that all tests have together, so that nothing is compiled once more.
cargo build --locked --manifest-path "$root/Cargo.toml" --workspace --bins --examples
"${CARGO_TARGET_DIR:-$root/target}/debug/examples/onnx_cases" "$work/cases" "${diamonds[@]}"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx onnxruntime numpy
"$work/venv/bin/python" "$root/tests/onnx/check.py" "$work/cases"
