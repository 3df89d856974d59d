#!/usr/bin/env python3
"""A cluster of real processes under load for a long time, while some of them are killed: `deploy/soak.py [MINUTES]`.

Three db nodes and three workers on this machine, from dist/ or the directory in PROGRAMS. Users upload tables, train, predict
and delete all of it again, the same tables again and again: what is cached by its content, and the notes of deletions, which
are kept for a day, come to an end so. Every 20 seconds one node is killed (SIGKILL) and started again, but the first db node
and the first worker never are, for what grows to show. Fails if a request is not answered in the end, if something is lost,
or if the memory of a process (what is its own, without files) is higher in the last third than in the middle third by more
than a tenth and 16 MiB.
"""

import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

MINUTES = float(sys.argv[1]) if len(sys.argv) > 1 else 30
HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = pathlib.Path(os.environ.get("PROGRAMS", HERE.parent / "dist")).resolve()
PORT = int(os.environ.get("PORT", 17500))
KILL_EVERY, SAMPLE_EVERY, USERS, TABLES = 20, 2, 2, 20
# A request may be refused or broken off while nodes die; it is asked again, of another worker, for so long.
PATIENCE = 60

dbs = [f"127.0.0.1:{PORT + n}" for n in range(3)]
workers = [f"127.0.0.1:{PORT + 10 + n}" for n in range(3)]
work = pathlib.Path(tempfile.mkdtemp(prefix="dml-soak-"))
running, memory, failures, done = {}, {}, [], {"trainings": 0, "requests": 0, "again": 0, "kills": 0}
end = threading.Event()


def start(name):
    role, n = name.split("-")
    listen = (dbs if role == "db" else workers)[int(n)]
    command = [PROGRAMS / role, "--listen", listen, "--join", ",".join(dbs), "--log", "warn"]
    command += ["--data", work / name] if role == "db" else ["--slots", "1"]
    with open(work / f"{name}.log", "a") as log:
        running[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)


def own_memory(pid):
    """In MiB; none while it starts or ends."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))
    except (OSError, StopIteration):
        return None


def ask(method, path, body=b"", kind="application/json", expect=(200, 201, 202, 204)):
    """Asks whichever worker answers, and gives what it says."""
    until, why = time.monotonic() + PATIENCE, "nothing"
    while time.monotonic() < until:
        done["requests"] += 1
        connection = http.client.HTTPConnection(random.choice(workers), timeout=40)
        try:
            connection.request(method, path, body, {"content-type": kind, "accept": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status in expect:
                return json.loads(text) if text else None
            why = f"{answer.status} {text[:300]}"
            assert answer.status >= 500 or answer.status == 408, f"{method} {path}: {why}"
        except (OSError, http.client.HTTPException) as error:
            why = repr(error)
        finally:
            connection.close()
        done["again"] += 1
        time.sleep(0.3)
    raise AssertionError(f"{method} {path}: {why}")


def table(dice):
    rows = ([dice.random() for _ in range(4)] for _ in range(1000))
    return "a,b,c,d,y\n" + "".join(f"{a:.4f},{b:.4f},{c:.4f},{d:.4f},{a - 2 * b + c * d:.4f}\n" for a, b, c, d in rows)


def use(user):
    n = 0
    while not end.is_set() and not failures:
        n = (n + 1) % TABLES
        name, dice = f"soak-{user}-{n}", random.Random(USERS * n + user)
        try:
            ask("POST", f"/v1/datasets?name={name}", table(dice).encode(), "text/csv")
            models = [{"kind": kind} for kind in ("ridge", "decision_tree", "gradient_boosting")]
            asked = {"dataset": name, "target": "y", "models": models, "name": name, "seed": n}
            ask("POST", "/v1/trainings", json.dumps(asked).encode())
            state = None
            while state not in ("succeeded", "failed", "cancelled"):
                state = ask("GET", f"/v1/trainings/{name}?wait=20s")["state"]
            assert state == "succeeded", f"{name} has {state}"
            rows = [{"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}] * 10
            ask("POST", f"/v1/models/{name}/predict", json.dumps({"rows": rows}).encode())
            # What was deleted by a request whose answer got lost is not there any more.
            ask("DELETE", f"/v1/trainings/{name}", expect=(204, 404))
            ask("DELETE", f"/v1/datasets/{name}", expect=(204, 404))
            done["trainings"] += 1
        except AssertionError as error:
            failures.append(str(error))


def kill():
    dice = random.Random(0)
    while not end.wait(KILL_EVERY):
        name = dice.choice([name for name in running if not name.endswith("-0")])
        running[name].send_signal(signal.SIGKILL)
        running[name].wait()
        done["kills"] += 1
        end.wait(2)
        start(name)


def whole():
    nodes = ask("GET", "/v1/nodes")["items"]
    stores = [node for node in nodes if node["role"] == "db" and node["active"]]
    return len(stores) == 3 and all(not node.get("under_replicated") for node in stores)


def judge():
    print(f"{'':10} {'MiB at first':>12} {'middle third':>12} {'last third':>10}")
    for name in sorted(memory):
        samples = memory[name]
        third = len(samples) // 3
        middle, last = (statistics.median(part) for part in (samples[third : 2 * third], samples[2 * third :]))
        print(f"{name:10} {samples[0]:12.1f} {middle:12.1f} {last:10.1f}")
        if last > middle * 1.1 + 16:
            failures.append(f"{name} has grown from {middle:.1f} to {last:.1f} MiB")


def main():
    for name in [f"db-{n}" for n in range(3)] + [f"worker-{n}" for n in range(3)]:
        start(name)
    while not whole():
        time.sleep(0.2)
    threads = [threading.Thread(target=use, args=(user,)) for user in range(USERS)] + [threading.Thread(target=kill)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 60 * MINUTES
    while time.monotonic() < until and not failures:
        time.sleep(SAMPLE_EVERY)
        for name, process in list(running.items()):
            mib = own_memory(process.pid)
            if mib is not None:
                memory.setdefault(name, []).append(mib)
    end.set()
    for thread in threads:
        thread.join()
    try:
        until = time.monotonic() + PATIENCE
        while not whole():
            assert time.monotonic() < until, "not every datum has its copies again"
            time.sleep(0.5)
        left = ask("GET", "/v1/trainings")["items"]
        assert len(left) <= len(failures), f"what was deleted is there: {left}"
    except AssertionError as error:
        failures.append(str(error))
    print(", ".join(f"{count} {what}" for what, count in done.items()), f"in {MINUTES:g} minutes")
    judge()


try:
    main()
finally:
    end.set()
    for process in running.values():
        process.kill()
    if not failures:
        shutil.rmtree(work, ignore_errors=True)
if failures:
    sys.exit("\n".join(failures) + f"\nlogs and data: {work}")
