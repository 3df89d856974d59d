"""Clusters, and the things in them."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Union

from ._http import Problem, Workers, left, segment

Row = Mapping[str, Any]
Table = Union[str, "os.PathLike[str]", bytes, Iterable[Row], Any]
"""A file's name, CSV or Arrow as bytes, rows as dictionaries, or a data frame of pandas."""


class TrainingFailed(Exception):
    """A training ended without a model."""


class Cluster:
    """A cluster, by the addresses of some workers: ``http://HOST:PORT[,…]`` or a list.

    ``token`` is by default what ``DML_TOKEN`` says; ``ca`` is the file of the cluster's certificate, for https.
    """

    def __init__(
        self,
        addresses: str | Iterable[str] = "http://127.0.0.1:7300",
        *,
        token: str | None = None,
        ca: str | None = None,
        timeout: float = 60.0,
    ):
        self._workers = Workers(addresses, token, ca, timeout)

    def upload(self, table: Table, name: str | None = None) -> Dataset:
        """Uploads a table. The same table is the same dataset."""
        body, kind, called = _encoded(table)
        name = name or called
        query = f"?name={segment(name)}" if name else ""
        try:
            with self._workers.send("POST", f"/v1/datasets{query}", body, kind, "application/json") as answer:
                return Dataset(self, json.loads(answer.read()))
        finally:
            if isinstance(body, io.IOBase):
                body.close()

    def dataset(self, id: str) -> Dataset:
        """A dataset by id or name."""
        return Dataset(self, self._workers.json("GET", f"/v1/datasets/{segment(id)}"))

    def datasets(self) -> Iterator[Dataset]:
        """All datasets, newest first."""
        return (Dataset(self, view) for view in self._all("datasets"))

    def train(
        self,
        dataset: Dataset | str,
        target: str,
        models: Iterable[str | Mapping[str, Any]] = (),
        *,
        task: str | None = None,
        features: Iterable[str] | None = None,
        holdout: float | None = None,
        folds: int | None = None,
        seed: int | None = None,
        name: str | None = None,
        ensemble: str | None = None,
        min_members: int | None = None,
    ) -> Training:
        """Trains models (by default every default kind for the task). The same request is the same training.

        With ``ensemble`` (averaging, voting, stacking or bagging) they also predict together: see Training.predict."""
        new = _asked(dataset, target, models, features, holdout, folds)
        new |= {"task": task, "seed": seed, "name": name}
        new["ensemble"] = None if ensemble is None else {"method": ensemble, "min_members": min_members}
        return Training(self, self._workers.json("POST", "/v1/trainings", _given(new)))

    def training(self, id: str) -> Training:
        """A training by id or name."""
        return Training(self, self._workers.json("GET", f"/v1/trainings/{segment(id)}"))

    def trainings(self) -> Iterator[Training]:
        """All trainings, newest first."""
        return (Training(self, view) for view in self._all("trainings"))

    def tune(
        self,
        dataset: Dataset | str,
        target: str,
        models: Iterable[str | Mapping[str, Any]] = (),
        *,
        strategy: str | None = None,
        trials: int | None = None,
        metric: str | None = None,
        keep: int | None = None,
        batch: int | None = None,
        reduction: int | None = None,
        task: str | None = None,
        features: Iterable[str] | None = None,
        holdout: float | None = None,
        folds: int | None = None,
        seed: int | None = None,
        name: str | None = None,
    ) -> Study:
        """Searches for the parameters with which a model is best (by default of gradient boosting).

        A model is a kind, or ``{"kind": …, "params": {what is fixed}, "space": {what is looked for}}``: for each parameter a
        list of values or ``{"low": …, "high": …, "log": True}``. ``strategy`` is tpe, random, latin_hypercube, grid or
        halving."""
        new = _asked(dataset, target, models, features, holdout, folds)
        new |= {"strategy": strategy, "trials": trials, "metric": metric, "keep": keep, "batch": batch}
        new |= {"reduction": reduction, "task": task, "seed": seed, "name": name}
        return Study(self, self._workers.json("POST", "/v1/studies", _given(new)))

    def study(self, id: str) -> Study:
        """A study by id or name."""
        return Study(self, self._workers.json("GET", f"/v1/studies/{segment(id)}"))

    def studies(self) -> Iterator[Study]:
        """All studies, newest first."""
        return (Study(self, view) for view in self._all("studies"))

    def model(self, id: str) -> Model:
        """A model by id or name, or the best one of a training."""
        return Model(self, self._workers.json("GET", f"/v1/models/{segment(id)}"))

    def models(self) -> Iterator[Model]:
        """All finished models, newest first."""
        return (Model(self, view) for view in self._all("models"))

    def kinds(self) -> list[dict[str, Any]]:
        """Every kind of model with its parameters."""
        return self._workers.json("GET", "/v1/kinds")["items"]

    def nodes(self) -> list[dict[str, Any]]:
        """Every node ever seen, with its state."""
        return self._workers.json("GET", "/v1/nodes")["items"]

    def _all(self, things: str) -> Iterator[dict[str, Any]]:
        cursor = ""
        while True:
            page = self._workers.json("GET", f"/v1/{things}?limit=100{cursor}")
            yield from page["items"]
            if not page.get("next_cursor"):
                return
            cursor = f"&cursor={segment(page['next_cursor'])}"


class _Thing:
    """Something in a cluster, as it was when it was asked for."""

    _kind: str

    def __init__(self, cluster: Cluster, view: dict[str, Any]):
        self._cluster, self.view = cluster, view

    @property
    def id(self) -> str:
        """Its id."""
        return self.view["id"]

    @property
    def name(self) -> str | None:
        """The name given last."""
        return self.view.get("name")

    @property
    def state(self) -> str:
        """queued, running, succeeded, failed or cancelled, of what takes its time."""
        return self.view["state"]

    def _until_over(self, timeout: float | None) -> None:
        """Waits until it is over; a TimeoutError if it takes longer."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            step = min(20.0, left(deadline))
            path = f"/v1/{self._kind}/{self.id}?wait={math.ceil(step * 1000)}ms"
            self.view = self._cluster._workers.json("GET", path, timeout=step + 60)
            if self.state in ("succeeded", "failed", "cancelled"):
                return
            if left(deadline) == 0.0:
                raise TimeoutError(f"{self!r} is {self.state} after {timeout} s: {self.view['progress']:.0%}")

    def delete(self) -> None:
        """Deletes it on all nodes."""
        self._cluster._workers.send("DELETE", f"/v1/{self._kind}/{self.id}").__exit__()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or self.id[:12]}>"


class Dataset(_Thing):
    """A table in the cluster; ``view`` has its columns with types, blanks and statistics."""

    _kind = "datasets"

    @property
    def columns(self) -> list[str]:
        """The names of its columns."""
        return [column["name"] for column in self.view["columns"]]

    def __len__(self) -> int:
        return self.view["rows"]

    def rows(self, offset: int = 0, limit: int = 20) -> list[dict[str, Any]]:
        """Some rows."""
        path = f"/v1/datasets/{self.id}/rows?offset={offset}&limit={limit}"
        return self._cluster._workers.json("GET", path)["rows"]


class Training(_Thing):
    """Models that are trained together, best first."""

    _kind = "trainings"

    @property
    def models(self) -> list[dict[str, Any]]:
        """What is known of each model, the best first."""
        return self.view["models"]

    @property
    def best(self) -> Model:
        """The best finished model."""
        if self.view["best"] is None:
            raise TrainingFailed(self._why() or "no model is finished yet: wait()")
        return self._cluster.model(self.view["best"])

    def wait(self, timeout: float | None = None) -> Training:
        """Waits until it is over. Raises TimeoutError if it takes longer, and TrainingFailed if no model came of it."""
        self._until_over(timeout)
        if self.view["best"] is None:
            raise TrainingFailed(self._why() or f"it was {self.state}")
        return self

    def evaluate(self) -> dict[str, Any]:
        """How good the members of an ensemble are together: ``quality``, ``members_used``, ``members_total``, ``errors``."""
        return self._cluster._workers.json("POST", f"/v1/ml-distributed/evaluate?name={self.id}", {})

    def predict(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """What the members of an ensemble say together: ``predictions``, a dictionary a row, and what evaluate() tells of
        those members that took part."""
        plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
        return self._cluster._workers.json("POST", f"/v1/ml-distributed/predict?name={self.id}", {"rows": plain})

    def cancel(self) -> Training:
        """Cancels what is left of it."""
        self.view = self._cluster._workers.json("POST", f"/v1/trainings/{self.id}/cancel", {})
        return self

    def _why(self) -> str:
        return "; ".join(f"{model['name']}: {model['error']}" for model in self.models if model.get("error"))


class Study(_Thing):
    """A search for the best parameters."""

    _kind = "studies"

    def wait(self, timeout: float | None = None) -> Study:
        """Waits until it is over. Raises TimeoutError if it takes longer, and TrainingFailed if no trial succeeded."""
        self._until_over(timeout)
        if self.state != "succeeded" or self.view["training"] is None:
            errors = [trial["error"] for trial in self.view["leaders"] if trial["error"]]
            raise TrainingFailed(self.view.get("error") or next(iter(errors), f"it was {self.state}"))
        return self

    @property
    def best(self) -> dict[str, Any] | None:
        """The best trial so far: its ``kind``, ``params``, ``score`` and ``metrics``."""
        return next((trial for trial in self.view["leaders"] if trial["score"] is not None), None)

    @property
    def training(self) -> Training:
        """The training of the best, which begins when the study ends."""
        if self.view["training"] is None:
            raise TrainingFailed("nothing is kept yet: wait()")
        return self._cluster.training(self.view["training"])

    def trials(self) -> list[dict[str, Any]]:
        """All trials so far, best first."""
        return self._cluster._workers.json("GET", f"/v1/studies/{self.id}/trials")["items"]

    def cancel(self) -> Study:
        """Cancels what is left of it."""
        self.view = self._cluster._workers.json("POST", f"/v1/studies/{self.id}/cancel", {})
        return self


class Model(_Thing):
    """A model that can predict."""

    _kind = "models"

    @property
    def metrics(self) -> dict[str, Any]:
        """How good it is on rows that it has not seen."""
        return self.view.get("metrics") or {}

    def predict(self, table: Table) -> Any:
        """Predictions, in the order of the rows: of a data frame a data frame, else a dictionary a row."""
        path = f"/v1/models/{self.id}/predict"
        frame = _frame(table)
        if frame is not None:
            body, kind, _ = _encoded(frame)
            with self._cluster._workers.send("POST", path, body, kind, "text/csv") as answer:
                import pandas

                said = pandas.read_csv(io.BytesIO(answer.read()), keep_default_na=False)
            said.index = frame.index
            return said
        if isinstance(table, (str, bytes, os.PathLike)):
            body, kind, _ = _encoded(table)
            with self._cluster._workers.send("POST", path, body, kind, "application/json") as answer:
                return json.loads(answer.read())["predictions"]
        rows = [{name: _plain(value) for name, value in row.items()} for row in table]
        return self._cluster._workers.json("POST", path, {"rows": rows})["predictions"]

    def predict_dataset(self, dataset: Dataset | str, name: str | None = None) -> Prediction:
        """Predicts a whole dataset, as a job of the cluster."""
        new = {"model": self.id, "dataset": dataset.id if isinstance(dataset, Dataset) else dataset}
        view = self._cluster._workers.json("POST", "/v1/predictions", {**new, **({"name": name} if name else {})})
        return Prediction(self._cluster, view)

    def download(self, path: str | os.PathLike[str], format: str | None = None) -> None:
        """Writes the model into a file: ``native``, ``onnx`` or ``json``, by default as the file's name ends."""
        ending = os.path.splitext(path)[1]
        format = format or {".onnx": "onnx", ".json": "json"}.get(ending, "native")
        with self._cluster._workers.send("GET", f"/v1/models/{self.id}/download?format={format}") as answer:
            content = answer.read()
        with open(path, "wb") as file:
            file.write(content)

    def delete(self) -> None:
        """Models are deleted with their training."""
        raise TypeError("a model is deleted with its training")


class Prediction(_Thing):
    """A dataset that is being predicted."""

    _kind = "predictions"

    def wait(self, timeout: float | None = None) -> Prediction:
        """Waits until it is over."""
        self._until_over(timeout)
        if self.state != "succeeded":
            raise Problem(409, {"code": "prediction-failed", "detail": self.view.get("error") or "it failed"})
        return self

    def download(self, path: str | os.PathLike[str]) -> None:
        """Writes what is predicted into a CSV file."""
        with self._cluster._workers.send("GET", f"/v1/predictions/{self.id}/results", accept="text/csv") as answer:
            with open(path, "wb") as file:
                for piece in answer.pieces():
                    file.write(piece)


def _asked(
    dataset: Dataset | str,
    target: str,
    models: Iterable[str | Mapping[str, Any]],
    features: Iterable[str] | None,
    holdout: float | None,
    folds: int | None,
) -> dict[str, Any]:
    """What trainings and studies have in common."""
    if holdout is not None and folds is not None:
        raise ValueError("models are judged by a hold-out or by folds, not by both")
    validation = {"holdout": holdout} if holdout is not None else {"folds": folds} if folds is not None else None
    return {
        "dataset": dataset.id if isinstance(dataset, Dataset) else dataset,
        "target": target,
        "models": [{"kind": model} if isinstance(model, str) else dict(model) for model in models],
        "features": None if features is None else list(features),
        "validation": validation,
    }


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in fields.items() if value is not None}


def _frame(table: Any) -> Any:
    """The table if it is a data frame of pandas."""
    return table if hasattr(table, "to_csv") and hasattr(table, "columns") else None


def _encoded(table: Table) -> tuple[bytes | BinaryIO, str, str | None]:
    """A table as a body, its media type, and what it is called."""
    frame = _frame(table)
    if frame is not None:
        return frame.to_csv(index=False).encode(), "text/csv", None
    if isinstance(table, bytes):
        arrow = table.startswith((b"ARROW1", b"\xff\xff\xff\xff"))
        return table, "application/vnd.apache.arrow.stream" if arrow else "text/csv", None
    if isinstance(table, (str, os.PathLike)):
        stem = os.path.basename(table)
        for ending in (".gz", ".zst", ".csv", ".arrow", ".feather"):
            stem = stem.removesuffix(ending)
        return open(table, "rb"), "text/csv", stem
    rows = list(table)
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    for row in rows:
        values = (_plain(row.get(name)) for name in names)
        writer.writerow("" if value is None else value for value in values)
    return text.getvalue().encode(), "text/csv", None


def _plain(value: Any) -> Any:
    """A value as JSON has it: of NumPy its Python number, and what is not a number is blank."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value
