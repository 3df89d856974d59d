#!/usr/bin/env bash
# Models to an object store and back, with a store that looks at signatures, plain and over TLS: `bash tests/s3/run.sh`.
# Wants python3 with venv, PyPI (moto, a stand-in for S3) and openssl.
set -euo pipefail
. "$(dirname "$0")/../prepare.sh"
packages "moto[server]" boto3
cd "$work"

# An authority, and a certificate of it for the store.
key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2)
openssl req -x509 "${key[@]}" -keyout ca.key -out ca.pem -subj "/CN=authority" 2>/dev/null
openssl req -x509 "${key[@]}" -keyout store.key -out store.pem -subj "/CN=store" -CA ca.pem -CAkey ca.key \
    -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE 2>/dev/null

# After the four requests that make a bucket and a user, everything has to be signed by somebody who is known.
export INITIAL_NO_AUTH_ACTION_COUNT=4
venv/bin/moto_server -H 127.0.0.1 -p 7497 >plain.log 2>&1 &
venv/bin/moto_server -H 127.0.0.1 -p 7498 -s -c store.pem -k store.key >tls.log 2>&1 &
for port in 7497 7498; do
    for _ in $(seq 300); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break || sleep 0.1; done
done
"$programs/dml" train "$root/data/penguins.csv" --target species --model logistic --model gaussian_nb \
    --name "our birds, 2026 #1" 2>/dev/null >/dev/null
"$python" "$root/tests/s3/check.py" "$programs/dml" http://127.0.0.1:7497 https://127.0.0.1:7498
