"""Compares ONNX files with what DML says: `check.py DIRECTORY`, as written by the example `onnx_cases`.

For every case: the file is valid, its inputs are the table's columns, the labels are equal, and the scores are equal
within 1e-5 of their size. Probabilities below 1e-12 count as nothing. Where two classes are equally likely within 1e-9,
either label will do. Uses nothing but the file to find out how a value of the table becomes an input.
"""

import csv
import datetime
import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime

RELATIVE = 1e-5
NOTHING = 1e-12
EPOCH = datetime.datetime(1970, 1, 1)


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    return header, rows


def number(text, kind):
    if text == "":
        return np.nan
    if kind == "boolean":
        return {"true": 1.0, "false": 0.0}[text]
    if kind == "date":
        return float((datetime.datetime.fromisoformat(text) - EPOCH).days)
    if kind == "datetime":
        return float((datetime.datetime.fromisoformat(text) - EPOCH) // datetime.timedelta(milliseconds=1))
    return float(text)


def feed(facts, header, rows):
    inputs = {}
    for column in json.loads(facts["dml.schema"]):
        at = header.index(column["name"])
        cells = [row[at] for row in rows]
        if column["input"] == "string":
            values = np.array(cells, dtype=object)
        else:
            values = np.array([number(cell, column["type"]) for cell in cells], dtype=np.float64)
        inputs[column["name"]] = values.reshape(-1, 1)
    return inputs


def furthest(said, expected, what):
    """The greatest difference, as a part of the value."""
    assert said.shape == expected.shape, f"{what}: shape {said.shape} instead of {expected.shape}"
    assert np.isfinite(said).all(), f"{what}: not finite"
    return float((np.abs(said - expected) / (np.abs(expected) + NOTHING / RELATIVE)).max(initial=0.0))


def compare(facts, outputs, header, rows):
    """The furthest difference between what the file says and what was expected."""
    if facts["dml.task"] == "regression":
        [said] = outputs
        return furthest(said, np.array([[float(row[0])] for row in rows]).reshape(-1, 1), "prediction")
    labels, said = outputs
    classes = json.loads(facts["dml.classes"])
    assert header == ["prediction"] + [f"probability_{name}" for name in classes], "the classes differ"
    expected = np.array([row[1:] for row in rows], dtype=np.float64).reshape(-1, len(classes))
    for i, (label, row) in enumerate(zip(labels, rows, strict=True)):
        p = expected[i]
        tie = abs(p[classes.index(label)] - p[classes.index(row[0])]) <= 1e-9
        assert label == row[0] or tie, f"row {i + 1}: '{label}' instead of '{row[0]}'"
    return furthest(said, expected, "probabilities")


def check(place):
    path = place / "model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert set(facts) == {
        f"dml.{name}"
        for name in "version model digest kind params task target classes schema outputs".split()
    }, "the metadata differ"
    header, rows = read(place / "inputs.csv")
    assert [value.name for value in session.get_inputs()] == header, "the inputs are not the columns"
    assert [value.name for value in session.get_outputs()] == json.loads(facts["dml.outputs"])
    expected_header, expected = read(place / "expected.csv")
    assert len(rows) == len(expected) == 1000, "there are not 1,000 rows"
    worst = 0.0
    # All at once, none, and one by one: runtimes compute these in different ways.
    for part in [slice(None), slice(0), *(slice(i, i + 1) for i in range(0, 1000, 50))]:
        outputs = session.run(None, feed(facts, header, rows[part]))
        worst = max(worst, compare(facts, outputs, expected_header, expected[part]))
    assert worst <= RELATIVE, f"scores differ by {worst:.2e} of their size"
    return worst


def main():
    places = sorted(path.parent for path in pathlib.Path(sys.argv[1]).glob("*/model.onnx"))
    failed = 0
    for place in places:
        try:
            worst = check(place)
            print(f"{place.name}: equal within {worst:.1e}, {(place / 'model.onnx').stat().st_size} bytes")
        except Exception as error:  # the other cases are of interest too
            failed += 1
            print(f"{place.name}: {type(error).__name__}: {error}")
    print(f"{len(places)} files, {failed} of them differ, onnxruntime {onnxruntime.__version__}")
    sys.exit(0 if places and not failed else 1)


if __name__ == "__main__":
    main()
