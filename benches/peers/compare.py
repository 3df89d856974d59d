"""Runs every measurement in a process of its own, libraries in turns, and says how they compare.

`run.sh` starts it; see there. Results are added to `results.jsonl` in the working directory and to the report as they
come, so that a run that is stopped has not been for nothing.
"""

import argparse
import csv
import importlib.metadata
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy

import files
import report

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
THREADS = 2
LIMIT_S = 900
BOOSTERS = ["lightgbm", "xgboost", "scikit-learn", "catboost"]
# Case by case: which table judges, by which measure, and who takes part beside DML.
CASES = {
    "boosting": ("binary/judge", "AUC", BOOSTERS),
    "ridge": ("regression/judge", "RMSE", ["scikit-learn"]),
    "logistic": ("binary/train", "log-loss", ["scikit-learn", "linfa"]),
    "gaussian_nb": ("binary/judge", "AUC", ["scikit-learn", "linfa"]),
    "tree": ("binary/judge", "AUC", ["scikit-learn"]),
    "forest": ("small/judge", "AUC", ["scikit-learn"]),
    "csv": (None, None, ["polars", "pandas", "pyarrow"]),
    "diamonds": ("diamonds/judge", "RMSE", BOOSTERS),
}
# Measured with the boosted models of the first.
PREDICTIONS = {"predict": "batch_s", "one_row": "one_row_s"}


def main():
    options = parse()
    cpus = sorted(os.sched_getaffinity(0))[:THREADS]
    os.sched_setaffinity(0, cpus)
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS", "LOKY_MAX_CPU_COUNT"]
    os.environ.update({name: str(THREADS) for name in names})
    wanted = [case for case in CASES if not options.only or case in options.only]
    if set(options.only) & set(PREDICTIONS) and "boosting" not in wanted:
        wanted.insert(0, "boosting")
    versions = {rival: version(rival, options.work) for rival in sorted({r for _, _, rs in CASES.values() for r in rs})}
    data = options.work / "data"
    diamonds = options.diamonds or shipped_diamonds()
    if diamonds is None and "diamonds" in wanted:
        print("there is no table of diamonds: that case is left out", file=sys.stderr)
        wanted.remove("diamonds")
    write_tables(options, data, diamonds)
    before = os.getloadavg()[0]
    results, failures = [], {}
    log = open(options.work / "results.jsonl", "w")
    try:
        for case in wanted:
            rivals = ["dml"] + ([] if case == "csv" else ["dml (memory)"])
            rivals += [rival for rival in CASES[case][2] if versions[rival]]
            files.warm(data)
            for repeat in range(options.repeat):
                # Nobody is always the first after the pause.
                turn = repeat % len(rivals)
                for rival in rivals[turn:] + rivals[:turn]:
                    if (case, rival) in failures:
                        continue
                    measured = measure(options, data, case, rival)
                    if "failure" in measured:
                        failures[case, rival] = measured["failure"]
                        print(f"{case}: {rival} failed: {measured['failure']}", file=sys.stderr, flush=True)
                        continue
                    results.append({"case": case, "rival": rival, "repeat": repeat, **measured})
                    print(json.dumps(results[-1]), file=log, flush=True)
            write_report(options, versions, cpus, before, results, failures)
            print(report.as_text(lines(results, case)), flush=True)
    finally:
        shutil.rmtree(data)
    print(f"written: {options.out}")
    sys.exit(1 if any(rival.startswith("dml") for _, rival in failures) else 0)


def parse():
    parser = argparse.ArgumentParser(prog="benches/peers/run.sh")
    parser.add_argument("--program", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the large tables (1000000)")
    parser.add_argument("--repeat", type=int, default=3, help="how often everything is measured (3)")
    parser.add_argument("--only", action="append", default=[], choices=[*CASES, *PREDICTIONS], help="this case alone")
    parser.add_argument("--diamonds", type=Path, help="the table of diamonds, if not that of PyPI's plotnine")
    parser.add_argument("--out", type=Path, help="where the report goes")
    options = parser.parse_args()
    if options.rows < 10_000 or options.repeat < 1:
        parser.error("--rows is at least 10000, --repeat at least 1")
    full = options.rows == 1_000_000 and not options.only
    options.out = options.out or (ROOT / "docs" / "benchmarks.md" if full else options.work / "benchmarks.md")
    options.words = " ".join(["benches/peers/run.sh", *sys.argv[5:]])
    return options


def version(rival, work):
    """None if the library is not there."""
    if rival == "linfa":
        lock = (HERE / "linfa" / "Cargo.lock").read_text().split('name = "linfa"\nversion = "')
        return lock[1].split('"')[0] if (work / "linfa/release/linfa-peer").exists() else None
    try:
        return importlib.metadata.version(rival)
    except importlib.metadata.PackageNotFoundError:
        return None


def shipped_diamonds():
    spec = importlib.util.find_spec("plotnine")
    path = Path(spec.origin).parent / "data" / "diamonds.csv" if spec else None
    return path if path and path.exists() else None


def write_tables(options, data, diamonds):
    print(f"writing tables of {options.rows} rows below {data}", flush=True)
    shutil.rmtree(data, ignore_errors=True)
    words = [options.program, "data", data, str(options.rows)] + ([diamonds] if diamonds else [])
    subprocess.run(words, check=True)


def measure(options, data, case, rival):
    """What one process says, with the quality of what it predicted; or why it failed."""
    said = options.work / "said.f64"
    said.unlink(missing_ok=True)
    if rival.startswith("dml"):
        store = "memory" if rival == "dml (memory)" else "disk"
        words = [options.program, "csv", data] if case == "csv" else [options.program, "fit", case, data, store, said]
    elif rival == "linfa":
        words = [options.work / "linfa/release/linfa-peer", case, data, said]
    else:
        words = [sys.executable, "-W", "ignore", HERE / "rivals.py", case, rival, data, said]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"failure": f"not done after {LIMIT_S} s"}
    if done.returncode != 0:
        return {"failure": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    measured = json.loads(done.stdout.splitlines()[-1])
    judge, measure_name, _ = CASES[case]
    if judge:
        measured["quality"] = quality(measure_name, numpy.fromfile(said), targets(data, judge))
    elif (measured["rows"], measured["columns"]) != (options.rows, 29):
        return {"failure": f"read {measured['rows']} rows of {measured['columns']} columns"}
    return measured


def targets(data, judge):
    if judge.startswith("diamonds"):
        with open(data / f"{judge}.csv", newline="") as table:
            return numpy.array([float(row["price"]) for row in csv.DictReader(table)])
    return numpy.fromfile(data / f"{judge}_y.f64")


def quality(name, said, y):
    if len(said) != len(y):
        raise SystemExit(f"{len(said)} predictions for {len(y)} rows")
    if name == "RMSE":
        return float(numpy.sqrt(numpy.mean((said - y) ** 2)))
    if name == "log-loss":
        of_truth = numpy.clip(numpy.where(y == 1, said, 1 - said), 1e-15, 1)
        return float(-numpy.mean(numpy.log(of_truth)))
    return auc(said, y)


def auc(said, y):
    """The area under the ROC curve; equal scores share their ranks."""
    values, places, counts = numpy.unique(said, return_inverse=True, return_counts=True)
    ranks = (numpy.cumsum(counts) - (counts - 1) / 2)[places]
    ones = y.sum()
    return float((ranks[y == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(y) - ones)))


def lines(results, case):
    """Of each library in a case: medians, and how DML's time of the same turn compares with its own."""
    found = []
    shown = {case: "seconds"} if case != "boosting" else {case: "seconds", **PREDICTIONS}
    for name, key in shown.items():
        of_case = [result for result in results if result["case"] == case and key in result]
        ours = {result["repeat"]: result[key] for result in of_case if result["rival"] == "dml"}
        for rival in dict.fromkeys(result["rival"] for result in of_case):
            if name in PREDICTIONS and rival == "dml (memory)":
                continue
            of_rival = [result for result in of_case if result["rival"] == rival]
            ratios = [ours[result["repeat"]] / result[key] for result in of_rival if result["repeat"] in ours]
            found.append({
                "case": name, "rival": rival,
                "seconds": statistics.median(result[key] for result in of_rival),
                "ratio": statistics.median(ratios) if ratios else None,
                "ratios": (min(ratios), max(ratios)) if ratios else None,
                "measure": CASES[case][1] if key == "seconds" else None,
                "quality": statistics.median(result["quality"] for result in of_rival)
                if key == "seconds" and "quality" in of_rival[0] else None,
                "peak_mib": statistics.median(result["peak_mib"] for result in of_rival) if key == "seconds" else None,
                "prepare_s": statistics.median(result["prepare_s"] for result in of_rival)
                if key == "seconds" and "prepare_s" in of_rival[0] else None,
            })
    order = ["dml", "dml (memory)", *CASES[case][2]]
    return sorted(found, key=lambda line: (list(shown).index(line["case"]), order.index(line["rival"])))


def write_report(options, versions, cpus, before, results, failures):
    cases = {case: lines(results, case) for case in dict.fromkeys(result["case"] for result in results)}
    text = report.as_markdown(options, versions, cpus, before, cases, failures)
    fresh = options.out.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(options.out)


if __name__ == "__main__":
    main()
