#!/usr/bin/env bash
# Every kind that can be taken away as ONNX says the same in onnxruntime: `bash tests/onnx/run.sh [DIAMONDS.csv]`.
# Wants python3 with venv, and PyPI.
set -euo pipefail
. "$(dirname "$0")/../prepare.sh"
diamonds=("${@:1:1}")
[ ${#diamonds[@]} -eq 0 ] || diamonds=("$(realpath "${diamonds[0]}")")
"$programs/examples/onnx_cases" "$work/cases" "${diamonds[@]}"
packages onnx onnxruntime numpy
"$python" "$root/tests/onnx/check.py" "$work/cases"
