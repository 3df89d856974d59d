#!/usr/bin/env bash
# Uploads a generated CSV of 1 GiB (or $1 MiB) through REST to `dml up` and prints the time and the peak memory of the
# whole process.   cargo build --release && benches/upload.sh
set -euo pipefail
cd "$(dirname "$0")/.."
mib=${1:-1024}
directory=$(mktemp -d)
trap 'kill $server 2>/dev/null || true; rm -rf "$directory"' EXIT

target/release/dml --data "$directory/data" up --listen 127.0.0.1:7398 >"$directory/log" 2>&1 &
server=$!
for _ in $(seq 100); do curl -sf 127.0.0.1:7398/readyz >/dev/null && break; sleep 0.1; done

generate() {
    awk -v bytes=$((mib << 20)) 'BEGIN {
        srand(1); line = "a"; for (c = 1; c < 28; c++) line = line ",c" c; print line ",label"
        while (written < bytes) {
            line = ""; for (c = 0; c < 28; c++) line = line sprintf("%.6f,", rand() * 2 - 1)
            line = line (rand() < 0.5 ? "yes" : "no"); print line; written += length(line) + 1
        }
    }'
}
generate >"$directory/table.csv"
start=$(date +%s.%N)
curl -sf -T "$directory/table.csv" -X POST -H 'content-type: text/csv' \
    'http://127.0.0.1:7398/v1/datasets?name=big' -o "$directory/answer.json"
end=$(date +%s.%N)
printf '%s MiB in %.1f s, ' "$mib" "$(echo "$end - $start" | bc)"
grep -o '"rows":[0-9]*' "$directory/answer.json" | head -1
grep VmHWM /proc/$server/status
