#!/usr/bin/env bash
# Walks the console in a real Chromium, over two db nodes and a worker: `bash tests/console/run.sh [DIRECTORY]`, which
# keeps the screenshots. Wants python3 with venv, PyPI, and chromium with chromedriver (Debian: chromium-driver).
set -euo pipefail
. "$(dirname "$0")/../prepare.sh"
packages selenium axe-selenium-python
"$programs/db" --log warn --listen 127.0.0.1:7481 --data "$work/db1" &
"$programs/db" --log warn --listen 127.0.0.1:7482 --data "$work/db2" --join 127.0.0.1:7481 &
second=$!
"$programs/worker" --log warn --listen 127.0.0.1:7480 --join 127.0.0.1:7481 --join 127.0.0.1:7482 &
SE_OFFLINE=true "$python" "$root/tests/console/walk.py" http://127.0.0.1:7480 "$root/data/penguins.csv" "$second" "${1:-$work}"
