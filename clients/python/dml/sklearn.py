"""Estimators of scikit-learn that learn on a cluster. Needs NumPy and scikit-learn.

A fit uploads the rows, trains one kind of model on all of them, and keeps its name; a prediction asks the cluster. Trained
again on the same rows with the same parameters, nothing is computed twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ._cluster import Cluster, Model

_TARGET = "target"


class _DMLEstimator(BaseEstimator):
    _task: str

    def __init__(
        self,
        kind: str = "gradient_boosting",
        params: dict[str, Any] | None = None,
        folds: int = 2,
        random_state: int = 0,
        cluster: str = "http://127.0.0.1:7300",
    ):
        self.kind = kind
        self.params = params
        self.folds = folds
        self.random_state = random_state
        self.cluster = cluster

    def _train(self, X: np.ndarray, y: np.ndarray) -> None:
        cluster = Cluster(self.cluster)
        table = [dict(zip([*_names(X), _TARGET], [*row, value])) for row, value in zip(X, y)]
        dataset = cluster.upload(table, name="scikit-learn")
        training = cluster.train(
            dataset,
            _TARGET,
            [{"kind": self.kind, "params": self.params or {}}],
            task=self._task,
            folds=self.folds,
            seed=self.random_state,
        )
        best = training.wait().best
        self.model_id_: str = best.id
        self.metrics_ = best.metrics

    def _model(self) -> Model:
        return Cluster(self.cluster).model(self.model_id_)

    def _said(self, X: Any) -> list[dict[str, Any]]:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype="float64", ensure_all_finite="allow-nan")
        return self._model().predict(dict(zip(_names(X), row)) for row in X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class DMLRegressor(RegressorMixin, _DMLEstimator):
    """A regression by any kind of model of the cluster: see ``Cluster.kinds()``.

    ``params`` are those of the kind. ``metrics_`` tells how good models of this kind are, by ``folds``-fold cross-validation; the
    model that predicts has learned from all rows.
    """

    _task = "regression"

    def fit(self, X: Any, y: Any) -> DMLRegressor:
        X, y = validate_data(self, X, y, dtype="float64", ensure_all_finite="allow-nan", y_numeric=True)
        self._train(X, y)
        return self

    def predict(self, X: Any) -> np.ndarray:
        return np.array([row["prediction"] for row in self._said(X)], dtype="float64")


class DMLClassifier(ClassifierMixin, _DMLEstimator):
    """A classification by any kind of model of the cluster; otherwise as :class:`DMLRegressor`."""

    _task = "classification"

    def fit(self, X: Any, y: Any) -> DMLClassifier:
        X, y = validate_data(self, X, y, dtype="float64", ensure_all_finite="allow-nan")
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"Classifier can't train when only one class is present: {self.classes_[0]!r}")
        # Classes go by the letters of their places, so that any type of label can be told from any other.
        self._train(X, np.array([_label(code) for code in codes]))
        return self

    def predict(self, X: Any) -> np.ndarray:
        places = np.argmax(self.predict_proba(X), axis=1)
        return self.classes_[places]

    def predict_proba(self, X: Any) -> np.ndarray:
        said = self._said(X)
        columns = [f"probability_{_label(code)}" for code in range(len(self.classes_))]
        return np.array([[row[column] for column in columns] for row in said], dtype="float64")


def _names(X: np.ndarray) -> list[str]:
    return [f"x{column}" for column in range(X.shape[1])]


def _label(code: int) -> str:
    return f"class {code:06}"
