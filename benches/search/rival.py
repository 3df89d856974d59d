"""The functions of main.rs, searched by Optuna's TPE with its defaults, as one process; then both side by side.

    python rival.py PROGRAM [TRIALS [SEEDS [TABLE TARGET]]]

PROGRAM is the bench `search`, compiled. With a table the function is the error of DML's gradient boosting on it.
"""

import json

import statistics
import subprocess
import sys
from math import cos, exp, pi

import optuna

ALPHA = [1.0, 1.2, 3.0, 3.2]
A = [
    [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
    [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
    [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
    [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
]
P = [
    [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
    [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
    [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
    [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
]


def branin(x):
    bend = x[1] - 5.1 / (4 * pi * pi) * x[0] * x[0] + 5 / pi * x[0] - 6
    return bend * bend + 10 * (1 - 1 / (8 * pi)) * cos(x[0]) + 10


def hartmann6(x):
    distances = (sum(a * (v - p) ** 2 for a, v, p in zip(A[i], x, P[i])) for i in range(4))
    return -sum(alpha * exp(-distance) for alpha, distance in zip(ALPHA, distances))


def rosenbrock(x):
    return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in zip(x, x[1:]))


FUNCTIONS = {
    "branin": (branin, [(-5, 10), (0, 15)]),
    "hartmann6": (hartmann6, [(0, 1)] * 6),
    "rosenbrock4": (rosenbrock, [(-2, 2)] * 4),
}


def of_function(name):
    value, bounds = FUNCTIONS[name]
    names = [f"x{d}" for d in range(len(bounds))]
    return lambda trial: value([trial.suggest_float(n, *b) for n, b in zip(names, bounds)])


def of_table(program, table):
    """The dimensions of table.rs; the errors are computed by the bench."""
    served = subprocess.Popen([program, "serve", *table], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def value(trial):
        params = {
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.5, log=True),
            "max_leaves": trial.suggest_int("max_leaves", 4, 128, log=True),
            "min_samples_leaf": trial.suggest_int("min_samples_leaf", 1, 100, log=True),
            "l2_regularization": trial.suggest_float("l2_regularization", 0.001, 100.0, log=True),
            "max_features": trial.suggest_float("max_features", 0.3, 1.0),
        }
        print(json.dumps(params), file=served.stdin, flush=True)
        return float(served.stdout.readline())

    return value


def optuna_finds(value, trials, seed):
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(value, n_trials=trials)
    return study.best_value


def dml_finds(program, strategy, trials, batch, seeds, table):
    found = {}
    command = [program, strategy, str(trials), str(batch), str(seeds), *table]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        name, _, value = line.split()
        found.setdefault(name, []).append(float(value))
    return found


def main():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    program = sys.argv[1]
    trials = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    table = sys.argv[4:6]
    values = {"table": of_table(program, table)} if table else {name: of_function(name) for name in FUNCTIONS}
    columns = {
        "DML tpe": dml_finds(program, "tpe", trials, 1, seeds, table),
        "DML tpe, 4 at a time": dml_finds(program, "tpe", trials, 4, seeds, table),
        "DML random": dml_finds(program, "random", trials, 1, seeds, table),
        "Optuna tpe": {n: [optuna_finds(value, trials, s) for s in range(seeds)] for n, value in values.items()},
    }
    print(f"Median of the least value over {seeds} seeds, {trials} trials each (Optuna {optuna.__version__})\n")
    print("| function | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for name in values:
        medians = (statistics.median(found[name]) for found in columns.values())
        print(f"| {name} | " + " | ".join(f"{m:.4f}" for m in medians) + " |")


if __name__ == "__main__":
    main()
