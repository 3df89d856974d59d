"""The estimators keep scikit-learn's conventions."""

import os

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.datasets import make_classification, make_regression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from dml.sklearn import DMLClassifier, DMLRegressor

URL = os.environ["DML_TEST_URL"]


def test_estimators_in_a_pipeline():
    X, y = make_classification(300, 6, random_state=1)
    model = make_pipeline(StandardScaler(), DMLClassifier(kind="random_forest", params={"n_estimators": 20}, cluster=URL))
    assert cross_val_score(model, X, y, cv=3).min() > 0.8
    X, y = make_regression(200, 5, noise=1.0, random_state=1)
    fitted = DMLRegressor(kind="ridge", cluster=URL).fit(X, y)
    assert fitted.score(X, y) > 0.99 and fitted.metrics_["r2"] > 0.9
    labels = DMLClassifier(kind="logistic", cluster=URL).fit(X, np.where(y > 0, "up", "down"))
    assert set(labels.predict(X)) == {"up", "down"}
    assert np.allclose(labels.predict_proba(X).sum(axis=1), 1.0)


@pytest.mark.parametrize(
    ("estimator", "exceptions"),
    [
        (DMLClassifier(cluster=URL), {}),
        (DMLClassifier(kind="logistic", cluster=URL), {}),
        (DMLRegressor(kind="ridge", cluster=URL), {"check_fit2d_1sample": "a target of one value is refused in other words"}),
    ],
)
def test_conventions(estimator, exceptions):
    results = check_estimator(estimator, expected_failed_checks=exceptions, on_fail=None)
    failed = [f"{one['check_name']}: {one['exception']}" for one in results if one["status"] == "failed"]
    assert not failed, "\n".join(failed)
    assert len(results) > 40
