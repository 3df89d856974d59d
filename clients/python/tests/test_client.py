"""Against a cluster that listens at DML_TEST_URL, from the root of the project: `python -m pytest clients/python/tests`."""

import os
import pathlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import dml

URL = os.environ["DML_TEST_URL"]
PENGUINS = pathlib.Path(__file__).parents[3] / "data" / "penguins.csv"


@pytest.fixture(scope="module")
def cluster():
    return dml.Cluster(URL)


@pytest.fixture(scope="module")
def training(cluster):
    penguins = cluster.upload(PENGUINS)
    return cluster.train(penguins, "species", ["logistic", {"kind": "decision_tree", "params": {"max_depth": 3}}]).wait(120)


def test_a_life(cluster, training, tmp_path):
    assert len(cluster.dataset("penguins")) == 344
    assert cluster.dataset("penguins").columns[0] == "species"
    assert cluster.dataset("penguins").rows(1, 2)[0]["island"] == "Torgersen"
    assert training.state == "succeeded" and [model["kind"] for model in training.models] == ["logistic", "decision_tree"]
    best = training.best
    assert best.metrics["accuracy"] > 0.95
    said = best.predict([{"bill_length_mm": 50.0, "flipper_length_mm": 225, "island": "Biscoe", "body_mass_g": float("nan")}])
    assert said[0]["prediction"] == "Gentoo"
    for name in ["best.onnx", "best.json", "best.dml"]:
        best.download(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 100
    prediction = best.predict_dataset("penguins").wait(120)
    prediction.download(tmp_path / "said.csv")
    assert len((tmp_path / "said.csv").read_text().splitlines()) == 345
    assert any(node["role"] == "worker" for node in cluster.nodes())
    assert any(kind["name"] == "ridge" for kind in cluster.kinds())
    assert training.id in [each.id for each in cluster.trainings()]


def test_the_same_is_done_once(cluster, training):
    again = cluster.train("penguins", "species", ["logistic", {"kind": "decision_tree", "params": {"max_depth": 3}}])
    assert again.id == training.id and again.state == "succeeded"
    assert cluster.upload(PENGUINS.read_bytes(), name="penguins").id == cluster.dataset("penguins").id


def test_models_predict_together(cluster, training):
    together = cluster.train("penguins", "species", ["logistic", "gaussian_nb", "decision_tree"], ensemble="voting").wait(120)
    assert together.view["ensemble"] == {"method": "voting", "min_members": 1}
    said = together.predict([{"bill_length_mm": 50.0, "flipper_length_mm": 225, "island": "Biscoe", "body_mass_g": None}])
    assert said["predictions"][0]["prediction"] == "Gentoo"
    assert (said["members_used"], said["members_total"], said["errors"]) == (3, 3, [])
    assert together.evaluate()["quality"] == said["quality"] and said["quality"]["accuracy"] > 0.9
    with pytest.raises(dml.Problem) as told:
        training.evaluate()
    assert told.value.code == "not-an-ensemble"
    with pytest.raises(dml.Problem) as told:
        cluster.train("penguins", "species", folds=3, ensemble="voting")
    assert told.value.code == "bad-ensemble"


def test_a_search(cluster, training):
    space = {"max_depth": [1, 2, 4], "min_samples_leaf": {"low": 1, "high": 50, "log": True}}
    tree = {"kind": "decision_tree", "params": {}, "space": space}
    study = cluster.tune("penguins", "species", [tree], strategy="tpe", trials=12, folds=3, keep=2, name="trees").wait(120)
    assert study.state == "succeeded" and len(study.trials()) == 12 and study.trials()[0] == study.best
    kept = study.training.wait(120)
    assert kept.name == "trees" and len(kept.models) == 2
    assert kept.best.predict([{"bill_length_mm": 50.0}])[0]["prediction"] in ("Adelie", "Chinstrap", "Gentoo")
    assert [each.id for each in cluster.studies()] == [study.id] and cluster.study("trees").id == study.id
    with pytest.raises(dml.Problem) as told:
        cluster.tune("penguins", "species", ["ridge_classifier"], strategy="grid")
    assert told.value.code == "grid-of-ranges"
    study.delete()
    assert not list(cluster.studies())


def test_rows_and_frames(cluster, training):
    pandas = pytest.importorskip("pandas")
    # Whole numbers stay whole beside blanks.
    frame = pandas.read_csv(PENGUINS, dtype_backend="numpy_nullable")
    assert cluster.upload(frame, name="frame").id == cluster.dataset("penguins").id
    said = training.best.predict(frame.set_index("year", drop=False))
    assert (said["prediction"].to_numpy() == frame["species"].to_numpy()).mean() > 0.95
    assert list(said.index) == list(frame["year"])
    rows = [{"a": n, "b": None if n % 3 else "x, \"y\"", "c": n % 2 == 0} for n in range(30)]
    assert cluster.upload(rows, name="rows").view["columns"][1]["nulls"] == 20


def test_what_is_refused_is_told(cluster):
    with pytest.raises(dml.Problem) as told:
        cluster.train("penguins", "specie")
    assert told.value.code == "target-missing" and told.value.column == "specie" and "species" in told.value.detail
    with pytest.raises(dml.Problem) as told:
        cluster.upload(b"a,b\n1,2\n3\n")
    assert told.value.code == "ragged-row" and told.value.row == 2
    with pytest.raises(dml.Problem) as told:
        cluster.dataset("../etc/passwd")
    assert told.value.status in (400, 404)
    with pytest.raises(ValueError):
        cluster.train("penguins", "species", holdout=0.2, folds=3)
    with pytest.raises(ValueError):
        dml.Cluster("ftp://example.com")


class Busy(BaseHTTPRequestHandler):
    """A worker that finds no db node."""

    def do_GET(self):
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b'{"code": "unavailable", "detail": "no db node answers"}')

    def log_message(self, *_):
        pass


def test_the_next_worker_is_asked():
    server = HTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    busy = f"http://127.0.0.1:{server.server_port}"
    assert len(dml.Cluster(f"http://127.0.0.1:1,{busy},{URL}").dataset("penguins")) == 344
    with pytest.raises(dml.Problem) as told:
        dml.Cluster(["http://127.0.0.1:1", busy]).dataset("penguins")
    assert told.value.status == 503
    with pytest.raises(dml.NoAnswer):
        dml.Cluster("http://127.0.0.1:1").dataset("penguins")
    server.shutdown()
