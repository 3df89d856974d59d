#!/usr/bin/env bash
# The cluster of compose.yaml in real containers, and what happens to containers. Takes the programs from dist/, or makes
# them; needs a Docker engine and no network. `deploy/test.sh swarm` tries swarm.yaml likewise, on a swarm of this machine,
# `search` and `ensemble` the clusters of compose-search.yaml and compose-ensemble.yaml.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

mode=${1:-compose}
project=dmltest-$mode
# Any free ports: the test asks containers at their own addresses.
export PORTS=0
work=$(mktemp -d)
log=$work/compose.log
files=(-f deploy/compose.yaml -f "$work/network.yaml")
case $mode in search | ensemble) files=(-f deploy/compose-$mode.yaml) ;; esac
compose() { docker-compose -p $project "${files[@]}" "$@" 2>>"$log"; }
if docker compose version &>/dev/null; then
    compose() { docker compose -p $project "${files[@]}" "$@" 2>>"$log"; }
fi
# The cluster has certificates; who asks here is its administrator.
export SECRETS=$work/secrets
tls=(--cacert "$SECRETS/ca.pem" --cert "$SECRETS/admin.pem")
# Only in a network with addresses that were named can a container be given the one back that it had.
cat >"$work/network.yaml" <<YAML
networks:
  cluster:
    ipam:
      config:
        - subnet: 10.213.77.0/24
YAML
step() { printf '== %s (%s s)\n' "$1" "$SECONDS"; }
fail() {
    echo "FAILED: $1" >&2
    tail -n 20 "$log" >&2 || true
    docker service ps --no-trunc ${project}_db ${project}_worker >&2 2>/dev/null || true
    for container in $(docker ps -aq --filter "label=com.docker.compose.project=$project"); do
        docker inspect -f '{{.Name}} {{.State.Status}}' "$container" >&2
        docker logs --tail 15 "$container" >&2
    done
    exit 1
}

clean() {
    if [[ -e $work/swarm ]]; then
        docker stack rm $project &>/dev/null || true
        # A network that outlives its swarm cannot be removed.
        for _ in $(seq 100); do
            [[ -n $(docker network ls -q --filter "label=com.docker.stack.namespace=$project") ]] || break
            sleep 0.2
        done
        docker swarm leave --force &>/dev/null || true
        docker volume ls -q --filter "name=${project}_" | xargs -r docker volume rm &>/dev/null || true
    fi
    jobs -p | xargs -r kill 2>/dev/null || true
    docker network rm "${project}_other" &>/dev/null || true
    compose down -v --remove-orphans -t 1 >/dev/null || true
    [[ ! -e $work/nginx ]] || docker rmi -f $balancer &>/dev/null || true
    rm -rf "$work"
}

# The containers of a service, by number; and the address of one.
containers() { docker ps -q --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"; }
worker() { docker ps -aq --filter "label=com.docker.compose.project=$project" --filter "name=${project}[_-]worker[_-]$1\$"; }
# Those of a service that have ended, too.
ever() { docker ps -aq --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"; }
db() { ever "db$1"; }
ip() { docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }

# Waits for a command to succeed.
eventually() {
    local limit=$1 start=$SECONDS
    shift
    until "$@" &>/dev/null; do
        ((SECONDS - start < limit)) || fail "not within $limit s: $*"
        sleep 0.1
    done
}

healthy() { [[ $(docker inspect -f '{{.State.Health.Status}}' "$1") = healthy ]]; }
# Addresses change here; what is verified is that it is such a node of this cluster.
asked() { curl -sf --max-time 2 "${tls[@]}" --connect-to "::$(ip "$2"):" "https://$1.dml.internal:$3"; }
ready() { asked worker "$1" 7300/readyz; }
urls() { for w in $(containers worker) $(containers consumer); do printf 'https://%s:7300,' "$(ip "$w")"; done; }
dml() { dist/dml --cluster "$(urls)" --identity "$SECRETS/admin.pem" "$@"; }
at() { dist/dml --cluster "https://$(ip "$1"):7300" --identity "$SECRETS/admin.pem" "${@:2}"; }

# Trains and predicts with the containers named first: what a user does.
use() {
    local name=$1
    shift
    "$@" train data/penguins.csv --target species --model gaussian_nb --model decision_tree --name "$name" --seed "${#name}$RANDOM" >"$work/train" 2>&1 ||
        { cat "$work/train" >&2; fail "no training $name"; }
    "$@" predict "$name" data/penguins.csv -o "$work/predictions.csv" &>"$work/predict" || { cat "$work/predict" >&2; fail "no prediction"; }
    [[ $(wc -l <"$work/predictions.csv") -eq 345 ]] || fail "the predictions of $name are not whole"
}

active() { [[ $(at "$1" --json cluster | grep -c '"state": "active"') -ge $2 ]]; }
sees() { at "$1" training show "$2"; }
# All db nodes are there, and every datum has all its copies.
whole() {
    local n
    for n in 1 2 3; do
        page=$(asked db "$(db $n)" 7301/metrics) || return 1
        grep -q '^dml_db_nodes{state="active"} 3$' <<<"$page" && grep -q '^dml_data_under_replicated 0$' <<<"$page" || return 1
    done
}

# A program of dist/ as an image of this name.
image() { docker build -q -f deploy/Dockerfile --build-arg "PROGRAM=$1" -t "$2" --target prebuilt dist &>>"$log"; }

images() {
    [[ -x dist/db && -x dist/worker && -x dist/dml ]] || deploy/dist.sh
    deploy/secrets.sh "$SECRETS" >>"$log"
    local program size
    for program in db worker; do
        image $program dml-$program
        size=$(docker image inspect -f '{{.Size}}' dml-$program)
        echo "image dml-$program: $((size / 1000)) kB"
        ((size <= 20000000)) || fail "the image dml-$program is larger than 20 MB"
    done
}

restart_all_under_load() {
    local restarted
    : >"$work/failures"
    # A client that tries each request three times, until it is told to stop.
    (
        n=0
        while [[ ! -e $work/enough ]]; do
            n=$((n + 1))
            printf 'x,y\n%s,1\n2,3\n4,5\n5,7\n7,8\n' $n >"$work/load.csv"
            for request in "dataset add $work/load.csv --name load$n" "predict first data/penguins.csv -o $work/load.out"; do
                for try in 1 2 3 never; do
                    [[ $try != never ]] || { echo "$request: $(cat "$work/load.log")" >>"$work/failures"; break; }
                    # shellcheck disable=SC2086
                    dml $request >"$work/load.log" 2>&1 && break
                    sleep 1
                done
            done
            echo $n >"$work/loads"
        done
    ) &
    local load=$!
    dml train data/penguins.csv --target species --folds 5 --name busy &>"$work/busy" &
    local busy=$!
    for restarted in $(db 1) $(db 2) $(db 3) $(containers worker); do
        docker stop -t 30 "$restarted" >/dev/null
        [[ $(docker inspect -f '{{.State.ExitCode}}' "$restarted") -eq 0 ]] || fail "a node did not end well"
        docker start "$restarted" >/dev/null
        eventually 20 whole
    done
    wait $busy || fail "the training under way failed: $(cat "$work/busy")"
    touch "$work/enough"
    wait $load
    echo "requests while all nodes restarted: $((2 * $(cat "$work/loads"))), failed: $(wc -l <"$work/failures")"
    [[ ! -s $work/failures ]] || fail "$(cat "$work/failures")"
    for n in $(seq 1 "$(cat "$work/loads")"); do
        dml dataset show "load$n" >/dev/null || fail "load$n is lost"
    done
}

composed() {
    step "from nothing to a prediction"
    local start n
    start=$(date +%s%N)
    compose up -d >/dev/null || fail "compose up"
    eventually 15 ready "$(worker 1)"
    use first dml
    local took=$((($(date +%s%N) - start) / 1000000))
    echo "from nothing to the first prediction: $took ms"
    ((took <= 15000)) || fail "it took more than 15 s"
    local stranger
    stranger=$(curl -s --cacert "$SECRETS/ca.pem" --connect-to "::$(ip "$(worker 1)"):" -o "$work/stranger" -w '%{http_code}' \
        https://worker.dml.internal:7300/v1/models)
    [[ $stranger = 401 ]] || fail "a stranger is answered with $stranger"
    eventually 20 whole
    for n in $(containers db1) $(containers worker); do
        eventually 20 healthy "$n"
        echo "resident: $(docker top "$n" -o pid,rss,comm | tail -1)"
    done

    step "a db node and two workers are killed"
    docker kill "$(db 1)" "$(worker 2)" "$(worker 3)" >/dev/null
    use killed at "$(worker 1)"
    sees "$(worker 1)" first >/dev/null || fail "what was there before is gone"
    docker start "$(db 1)" "$(worker 2)" "$(worker 3)" >/dev/null
    eventually 20 whole

    step "half of the network"
    docker network create "${project}_other" >/dev/null
    local db3 worker3
    db3=$(ip "$(db 3)") worker3=$(ip "$(worker 3)")
    for n in $(db 3) $(worker 3); do
        docker network disconnect "${project}_cluster" "$n"
    done
    docker network connect --alias db "${project}_other" "$(db 3)"
    docker network connect "${project}_other" "$(worker 3)"
    eventually 30 ready "$(worker 3)"
    use one-side at "$(worker 1)"
    use other-side at "$(worker 3)"
    for n in $(db 3) $(worker 3); do
        docker network disconnect "${project}_other" "$n"
    done
    docker network connect --alias db --ip "$db3" "${project}_cluster" "$(db 3)"
    docker network connect --ip "$worker3" "${project}_cluster" "$(worker 3)"
    eventually 40 whole
    for n in 1 2 3; do
        eventually 20 ready "$(worker $n)"
        for name in first killed one-side other-side; do
            eventually 20 sees "$(worker $n)" $name
        done
    done

    step "more workers, and fewer"
    compose up -d --no-recreate --scale worker=5 >/dev/null || fail "compose up --scale"
    eventually 20 active "$(worker 1)" 8
    use five dml
    compose up -d --no-recreate -t 30 --scale worker=3 >/dev/null || fail "compose up --scale"
    use three dml

    step "every node is restarted under load"
    restart_all_under_load

    step "without DNS"
    # As they are, but for the name.
    for n in 1 2 3; do
        docker network disconnect "${project}_cluster" "$(db $n)"
        docker network connect "${project}_cluster" "$(db $n)"
    done
    eventually 30 whole
    # shellcheck disable=SC2046
    docker restart -t 30 $(containers worker) "$(db 2)" >/dev/null
    eventually 30 whole
    for n in 1 2 3; do
        eventually 30 ready "$(worker $n)"
    done
    use nameless dml
    for n in 1 2 3; do
        docker network disconnect "${project}_cluster" "$(db $n)"
        docker network connect --alias db "${project}_cluster" "$(db $n)"
    done
    eventually 30 whole

    step "in every order"
    # It asked for an address, which others may be given while it is stopped: then it would not start.
    docker network disconnect "${project}_cluster" "$(worker 3)"
    docker network connect "${project}_cluster" "$(worker 3)"
    local order
    for order in "db1 db2 db3 worker" "worker db3 db2 db1" "db2 worker db1 db3"; do
        compose stop -t 30 >/dev/null || fail "compose stop"
        for n in $order; do
            compose start "$n" >/dev/null || fail "compose start $n"
            sleep 0.5
        done
        eventually 30 whole
        eventually 30 ready "$(worker 1)"
        sees "$(worker 1)" first >/dev/null || fail "after '$order' something is gone"
        use "order-${order// /-}" dml
    done
    step "all containers did what they should"
}

# A command of the console application in the network of the users, at whichever worker.
user() {
    docker run --rm --user 0 --network ${project}_users -v "$PWD/data:/data:ro" -v "$SECRETS:/secrets:ro" dml \
        --cluster https://tasks.worker:7300 --identity /secrets/admin.pem "$@"
}
nodes() { [[ $(user --json cluster | grep -c '"state": "active"') -eq $1 ]]; }

swarmed() {
    step "a swarm of this machine"
    image dml dml
    docker swarm init --advertise-addr 127.0.0.1 >/dev/null || fail "this machine is in a swarm already"
    touch "$work/swarm"
    docker secret create dml_cluster "$SECRETS/cluster.pem" >/dev/null
    docker stack deploy -c deploy/swarm.yaml $project &>>"$log"
    eventually 60 nodes 6
    user train /data/penguins.csv --target species --model gaussian_nb --name first &>"$work/train" || fail "no training: $(cat "$work/train")"

    step "more of both"
    docker service scale -d ${project}_db=5 ${project}_worker=4 >/dev/null
    eventually 60 nodes 9

    step "a rolling update of the db nodes"
    docker service update --force -q ${project}_db >/dev/null
    eventually 60 nodes 9
    user training show first >/dev/null || fail "the training is gone"
    step "the swarm did what it should"
}

ends_well() { [[ $(docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' "$1") = "exited 0" ]]; }
made() { [[ $(dml --json study show search | sed -n 's/^ *"done": *\([0-9]*\).*/\1/p') -ge $1 ]]; }

searched() {
    local trials=300 n
    export TRIALS=$trials
    image dml dml
    step "a pipeline that is started from its end"
    for n in collector producer consumer db; do
        compose up -d --no-build --no-deps $n >/dev/null || fail "compose up $n"
        sleep 1
    done
    eventually 30 made 10

    step "one of each stage and a db node are killed, producer and collector started again"
    docker kill "$(containers consumer | head -1)" "$(containers db | head -1)" "$(ever producer)" "$(ever collector)" >/dev/null
    ! made $trials || fail "all trials were made before anything was killed"
    docker start "$(ever producer)" "$(ever collector)" >/dev/null
    for n in collector producer; do
        eventually 120 ends_well "$(ever $n)"
    done
    made $trials || fail "not all trials are there"
    docker logs "$(ever collector)" 2>/dev/null
    step "the pipeline did what it should"
}

balancer=nginx:1.28-alpine
# In place of the image that a network would bring: nginx and the libraries of this machine.
balancer_image() {
    ! docker image inspect $balancer &>/dev/null && command -v nginx >/dev/null || return 0
    local file
    mkdir -p "$work/nginx"/{run,etc,var/log/nginx,var/lib/nginx}
    for file in "$(command -v nginx)" /etc/passwd /etc/group $(ldd "$(command -v nginx)" | grep -o '/[^ ]*'); do
        mkdir -p "$work/nginx$(dirname "$file")"
        cp -L "$file" "$work/nginx$file"
    done
    printf 'FROM scratch\nCOPY . /\nCMD ["%s", "-g", "daemon off;"]\n' "$(command -v nginx)" |
        docker build -q -f - -t $balancer "$work/nginx" &>>"$log"
}

# The commands of the book, sent to a port: all members answer.
book() {
    local command count=0
    while read -r command; do
        count=$((count + 1))
        eval "$command" >"$work/answer" || fail "$command"
        grep -q '"members_used":5,"members_total":5' "$work/answer" || fail "$command: $(cat "$work/answer")"
    done < <(sed -n "s/^curl -X POST localhost:80/curl -sS --max-time 60 -X POST localhost:$1/p" docs/ensembles.md)
    [[ $count -eq 3 ]] || fail "docs/ensembles.md has $count commands for port 80"
}

ensembled() {
    step "an ensemble behind two balancers"
    balancer_image
    compose up -d --no-build >/dev/null || fail "compose up"
    eventually 30 curl -sf localhost:80/readyz
    book 80
    step "a worker, a db node and a balancer are killed"
    for n in worker1 db2 nginx; do
        docker kill "$(containers $n)" >/dev/null
    done
    book 81
    step "two workers and two db nodes are killed"
    for n in worker3 db1; do
        docker kill "$(containers $n)" >/dev/null
    done
    book 81
    step "the ensemble answered whoever was killed"
}

if ! docker info &>/dev/null || ! compose version &>/dev/null; then
    echo "SKIPPED, nothing is tested: no Docker engine answers, or there is no docker compose"
    rm -rf "$work"
    exit 0
fi
trap clean EXIT
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
images
case $mode in
    compose) composed ;;
    swarm) swarmed ;;
    search) searched ;;
    ensemble) ensembled ;;
    *) echo "usage: deploy/test.sh [compose|swarm|search|ensemble]" >&2 && exit 2 ;;
esac
