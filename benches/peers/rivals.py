"""One measurement of another library: `rivals.py CASE RIVAL DIRECTORY SAID`.

Prints one line of JSON and writes what the model says of the judging rows into the file SAID. The clock runs from arrays
in memory to a fitted model. Parameters are those that DML's side has, where the library has them.
"""

import json
import resource
import statistics
import sys
import time
from pathlib import Path

THREADS = 2


def numbers(directory, part, width):
    import numpy

    x = numpy.fromfile(directory / f"{part}_x.f64").reshape(-1, width)
    return x, numpy.fromfile(directory / f"{part}_y.f64")


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ---- Boosting: a model, and the quickest of the library's ways to predict a table.


def lightgbm(objective):
    import lightgbm

    params = dict(objective=objective, num_leaves=31, learning_rate=0.1, max_bin=255, min_data_in_leaf=20,
                  lambda_l2=1.0, num_threads=THREADS, verbose=-1)

    def fit(x, y):
        texts = [name for name in getattr(x, "columns", []) if x[name].dtype == "category"]
        table = lightgbm.Dataset(x, y, categorical_feature=texts or "auto")
        model = lightgbm.train(params, table, num_boost_round=100)
        return lambda x: model.predict(x, num_threads=THREADS)

    return fit


def xgboost(objective):
    import xgboost

    params = dict(objective=objective, tree_method="hist", grow_policy="lossguide", max_leaves=31, max_depth=0, eta=0.1,
                  max_bin=255, reg_lambda=1.0, nthread=THREADS)

    def fit(x, y):
        table = xgboost.QuantileDMatrix(x, y, max_bin=255, nthread=THREADS, enable_categorical=True)
        model = xgboost.train(params, table, num_boost_round=100)
        return lambda x: model.inplace_predict(x)

    return fit


def sklearn_boosting(kind):
    from sklearn import ensemble

    params = dict(max_iter=100, max_leaf_nodes=31, learning_rate=0.1, max_bins=255, min_samples_leaf=20,
                  l2_regularization=1.0, early_stopping=False)

    def fit(x, y):
        if kind == "regression":
            return ensemble.HistGradientBoostingRegressor(**params).fit(x, y).predict
        model = ensemble.HistGradientBoostingClassifier(**params).fit(x, y)
        return lambda x: model.predict_proba(x)[:, 1]

    return fit


def catboost(kind):
    import catboost

    params = dict(iterations=100, learning_rate=0.1, grow_policy="Lossguide", max_leaves=31, depth=16, border_count=254,
                  min_data_in_leaf=20, l2_leaf_reg=1.0, thread_count=THREADS, verbose=False,
                  allow_writing_files=False)

    def fit(x, y):
        texts = [name for name in getattr(x, "columns", []) if x[name].dtype == "category"]
        if kind == "regression":
            model = catboost.CatBoostRegressor(**params).fit(x, y, cat_features=texts)
            return lambda x: model.predict(x, thread_count=THREADS)
        model = catboost.CatBoostClassifier(**params).fit(x, y)
        return lambda x: model.predict(x, prediction_type="Probability", thread_count=THREADS)[:, 1]

    return fit


def booster(rival, task):
    regression = task == "regression"
    if rival == "lightgbm":
        return lightgbm("regression" if regression else "binary")
    if rival == "xgboost":
        return xgboost("reg:squarederror" if regression else "binary:logistic")
    return {"scikit-learn": sklearn_boosting, "catboost": catboost}[rival](task)


def boosting(rival, directory):
    x, y = numbers(directory / "binary", "train", 28)
    fit = booster(rival, "classification")
    start = time.perf_counter()
    predict = fit(x, y)
    measured = {"seconds": time.perf_counter() - start, "peak_mib": peak_mib()}
    judge, _ = numbers(directory / "binary", "judge", 28)
    said = predict(judge)
    measured["batch_s"] = seconds_of(lambda: predict(judge), 1) / len(judge)
    row = judge[:1].copy()
    measured["one_row_s"] = seconds_of(lambda: predict(row), 50)
    return measured, said


def seconds_of(part, times):
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(times):
            part()
        seconds.append((time.perf_counter() - start) / times)
    return statistics.median(seconds)


def diamonds(rival, directory):
    import pandas

    train, judge = (pandas.read_csv(directory / "diamonds" / name) for name in ("train.csv", "judge.csv"))
    for name in train.columns:
        if not pandas.api.types.is_numeric_dtype(train[name]):
            values = pandas.CategoricalDtype(sorted(train[name].unique()))
            train[name], judge[name] = train[name].astype(values), judge[name].astype(values)
    fit = booster(rival, "regression")
    x, y = train.drop(columns="price"), train["price"]
    start = time.perf_counter()
    predict = fit(x, y)
    measured = {"seconds": time.perf_counter() - start, "peak_mib": peak_mib()}
    return measured, predict(judge.drop(columns="price"))


# ---- scikit-learn's others.


def others(case, directory):
    from sklearn import ensemble, linear_model, naive_bayes, tree

    table, model = {
        "ridge": ("regression", linear_model.Ridge(alpha=1.0)),
        "logistic": ("binary", linear_model.LogisticRegression(C=1.0)),
        "gaussian_nb": ("binary", naive_bayes.GaussianNB()),
        "tree": ("binary", tree.DecisionTreeClassifier(max_depth=10, min_samples_leaf=5, random_state=1)),
        "forest": ("small", ensemble.RandomForestClassifier(100, n_jobs=THREADS, random_state=1)),
    }[case]
    width = 20 if table == "regression" else 28
    x, y = numbers(directory / table, "train", width)
    start = time.perf_counter()
    model.fit(x, y)
    measured = {"seconds": time.perf_counter() - start, "peak_mib": peak_mib()}
    if case != "logistic":
        x, _ = numbers(directory / table, "judge", width)
    return measured, model.predict(x) if case == "ridge" else model.predict_proba(x)[:, 1]


# ---- CSV.


def csv(rival, directory):
    path = directory / "table.csv"
    if rival == "polars":
        import polars

        read = polars.read_csv
    elif rival == "pyarrow":
        import pyarrow
        from pyarrow import csv as arrow_csv

        pyarrow.set_cpu_count(THREADS)
        read = arrow_csv.read_csv
    else:
        import pandas

        read = pandas.read_csv
    start = time.perf_counter()
    table = read(path)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "rows": table.shape[0], "columns": table.shape[1], "peak_mib": peak_mib()}, None


def main():
    case, rival, directory, out = sys.argv[1:]
    directory = Path(directory)
    if case == "csv":
        measured, said = csv(rival, directory)
    elif case in ("boosting", "diamonds"):
        measured, said = {"boosting": boosting, "diamonds": diamonds}[case](rival, directory)
    else:
        measured, said = others(case, directory)
    if said is not None:
        import numpy

        numpy.asarray(said, dtype="<f8").tofile(out)
    print(json.dumps(measured))


main()
