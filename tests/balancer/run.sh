#!/usr/bin/env bash
# Ensembles behind two nginx, with what may fail failing while they are fitted, evaluated and asked: `bash tests/balancer/run.sh`.
# Three db nodes, three workers and deploy/nginx.conf twice, as processes on loopback. Wants nginx and curl.
set -euo pipefail
command -v nginx >/dev/null || { echo "skipped: no nginx"; exit 0; }
. "$(dirname "$0")/../prepare.sh"
cd "$root"
main=7480 backup=7481
declare -A process

step() { printf '== %s (%s s)\n' "$1" "$SECONDS"; }
fail() { echo "FAILED: $1" >&2; tail -n 15 "$work"/*.log >&2; exit 1; }

start_db() {
    "$programs/db" --listen "127.0.0.1:747$1" --data "$work/db$1" --join 127.0.0.1:7471 --join 127.0.0.1:7472 \
        --join 127.0.0.1:7473 >>"$work/db$1.log" 2>&1 &
    process[db$1]=$!
}
start_worker() {
    "$programs/worker" --listen "127.0.0.1:746$1" --join 127.0.0.1:7471 --join 127.0.0.1:7472 --join 127.0.0.1:7473 \
        >>"$work/worker$1.log" 2>&1 &
    process[worker$1]=$!
    for _ in $(seq 200); do curl -sf "127.0.0.1:746$1/readyz" >/dev/null && return || sleep 0.1; done
    fail "worker $1 does not become ready"
}
start_nginx() {
    mkdir -p "$work/$1"
    sed -E "s/worker([123]):7300/127.0.0.1:746\1/; s/listen 80;/listen 127.0.0.1:$2;/" deploy/nginx.conf >"$work/$1/nginx.conf"
    nginx -p "$work/$1" -c "$work/$1/nginx.conf" -g "daemon off; pid $work/$1/pid;" >>"$work/$1.log" 2>&1 &
    process[$1]=$!
    for _ in $(seq 100); do curl -s -o "$work/out" "127.0.0.1:$2/healthz" && return || sleep 0.1; done
    fail "$1 does not answer"
}
kills() { kill -9 "${process[$1]}" && wait "${process[$1]}" 2>/dev/null || true; }

# The commands of the book, sent to another port: every one has to be answered with 200 and by all members.
curls() { sed -n 's/^curl -X POST localhost:80/curl -sS -o "$work\/out" -D "$work\/head" -w "%{http_code}" -X POST localhost:$port/p' docs/ensembles.md; }
all() {
    local port=$1 command status
    while read -r command; do
        status=$(eval "$command")
        [[ $status == 200 ]] || fail "$2: $command: $status $(cat "$work/out")"
        grep -q '"members_used":5,"members_total":5' "$work/out" || fail "$2: $(cat "$work/out")"
    done < <(curls)
}
ask() { curl -sS -o "$work/out" -w '%{http_code}' -X POST -H 'Content-Type: application/json' -d "${3-}" "127.0.0.1:$1/v1/ml-distributed/$2"; }

step "three db nodes, three workers, two balancers"
for n in 1 2 3; do start_db $n; done
for n in 1 2 3; do start_worker $n; done
start_nginx main $main
start_nginx backup $backup
[[ $(curls | wc -l) -ge 3 ]] || fail "docs/ensembles.md has no commands for port 80"
[[ $(ask $main evaluate) == 409 ]] && grep -q not-fitted "$work/out" || fail "evaluated before it was fitted"
all $main "undisturbed"

step "requests are shared out evenly"
house=$(cat data/house_pricing/other/one_prediction_house_pricing_test.json)
for _ in $(seq 60); do ask $main predict "$house" >/dev/null; done
for n in 1 2 3; do
    count=$(grep -c "predict.* 200 .*by 127.0.0.1:746$n:" "$work/main.log")
    [[ $count -ge 15 ]] || fail "worker $n had $count of 60 requests"
done

step "a worker is killed: nobody notices, and the log tells"
kills worker1
for _ in $(seq 10); do all $main "without worker 1"; done
grep -q "connect() failed\|prematurely closed\|reset by peer" "$work/main.log" || fail "the failure is not logged"
start_worker 1

step "a worker falls silent: it is given up after the time-out"
kill -STOP "${process[worker2]}"
for _ in $(seq 3); do
    [[ $(ask $main predict "$house") == 200 && $(ask $main evaluate) == 200 ]] || fail "silent worker: $(cat "$work/out")"
done
grep -q "upstream timed out" "$work/main.log" || fail "the time-out is not logged"
kill -CONT "${process[worker2]}"

step "two of three workers are killed while a fit goes on, three times"
forest='{"kind": "random_forest", "params": {"n_estimators": 1000}}'
for n in 1 2 3; do
    ask $main fit "{\"seed\": $n, \"name\": \"fit$n\", \"method\": \"bagging\", \"models\": [$forest]}" >"$work/status" &
    fitting=$!
    sleep 0.5
    kill -0 $fitting 2>/dev/null || fail "the fit is over before a worker could be killed"
    kills worker1
    kills worker2
    wait $fitting
    [[ $(cat "$work/status") == 200 ]] || fail "fit without workers 1 and 2: $(cat "$work/out")"
    grep -q '"members_used":5' "$work/out" || fail "$(cat "$work/out")"
    start_worker 1
    start_worker 2
done
# At least once the worker that was killed was the one that had been asked.
grep -q 'fit HTTP/1.1" 200 .*by 127.0.0.1:746[12].*, 127.0.0.1:746' "$work/main.log" || fail "no fit went on elsewhere"

step "a db node is killed"
kills db2
for _ in $(seq 5); do all $main "without db 2"; done
[[ $(ask $main fit '{"seed": 9}') == 200 ]] || fail "fit without db 2: $(cat "$work/out")"
start_db 2

step "the balancer is killed: the other one knows all that was fitted"
kill -TERM "${process[main]}" && wait "${process[main]}" || true
curl -s -o "$work/out" "127.0.0.1:$main/healthz" && fail "the balancer is still there"
[[ $(ask $backup 'evaluate?name=fit3') == 200 ]] || fail "backup: $(cat "$work/out")"
all $backup "at the backup"
step "done"
