"""What was measured, as text and as the page docs/benchmarks.md."""

import platform
import subprocess
from pathlib import Path

TITLES = {
    "boosting": "Gradient boosting: 100 iterations, 31 leaves, two classes, {rows} x 28",
    "predict": "Prediction of a table by the boosted model",
    "one_row": "Prediction of one row by the boosted model",
    "ridge": "Ridge regression, {rows} x 20",
    "logistic": "Logistic regression, {rows} x 28 (log-loss of the training rows)",
    "gaussian_nb": "Gaussian naive Bayes, {rows} x 28",
    "tree": "Decision tree of depth 10, {rows} x 28",
    "forest": "Random forest of 100 trees, {small} x 28",
    "csv": "CSV to typed columns, {rows} x 29",
    "diamonds": "Gradient boosting of the diamonds' prices, 43,000 x 9, three columns of text",
}
REMARKS = """\
## What is compared

- A *ratio* is DML's time divided by the other library's in the same turn: below 1, DML is faster. It is the median over the
  turns, with the least and the greatest behind it. Times are medians. Everybody runs on the same two cores with two
  threads, each measurement in a process of its own, in turns.
- The machine should do nothing else. Threads of OpenMP spin while they wait, so that LightGBM, XGBoost and scikit-learn's
  boosting become slower by far on a busy machine, in which DML would look better than it is.
- DML is measured as a library, through `Engine`: the jobs `prepare` (statistics of all columns, from which encoding and
  scaling follow) and `fit`, both counted, from the encoded Arrow chunks of a stored dataset to the bytes of the model.
  `dml` reads the chunks from files, of which the system has a copy in memory, and checks their digests; `dml (memory)` has the
  encoded chunks in memory. The others begin with an array of doubles in memory (diamonds: with a data frame whose texts are
  categories), which is to their advantage. What a cluster adds (leases, results that are kept on several nodes) is left out.
- In a training with several models `prepare` is done once for all of them; here each fit pays for it alone.
- The peak is that of the whole process until the fit is done: it includes Python and the table where the library needs it
  in memory. DML holds a few chunks at a time.
- DML's results are the same bits on any number of threads, nodes and kinds of CPU. That costs time, which is counted.
- *Prediction of a table* is a call with 28 columns and a tenth of the training rows (at most 100,000): Arrow columns for
  DML, an array of doubles for the others. *One row* is the same call with one row: for the others it is made from Python, whose
  overhead is part of what their users see, and not of what the libraries need in C.
- Generated tables are normal noise with a class (or a number) that follows from some of the columns. They have no blanks, no
  texts and no repeated values: what is measured is arithmetic. Diamonds are the one table from life here.
- Parameters are the same where libraries have the same: learning rate 0.1, at most 255 bins, at least 20 rows a leaf, an
  L2 penalty of 1. CatBoost grows leaf by leaf as the others do, which is not its default; its target encoding of texts differs.
  XGBoost has no least number of rows a leaf: its default weight of 1 stands. For diamonds all know which columns are texts.
- Decision tree and forest of scikit-learn look for the best threshold among all values; DML's look among at most 255 bins of
  each column, as boosting does: much less work, and AUC tells what it costs.
- Logistic regressions end by their own default tolerance: the log-loss shows how near they came to the same minimum.
- linfa runs on one thread here, without BLAS. Its ridge regression is left out: it goes through all of its 1,000 iterations, which
  takes minutes for a million rows.
- The CSV case holds all columns in memory in the end. DML makes chunks of the types that its first rows have, and
  would read the file once more if they turned out to be others. An upload keeps the text in a temporary file for that.
"""


def as_text(lines):
    rows = [("case", "library", "time", "ratio", "range", "quality", "peak MiB")]
    return aligned(rows + [(line["case"], line["rival"], *cells(line)) for line in lines])


def aligned(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows) + "\n"


def cells(line):
    ours = line["rival"] == "dml"
    low_high = "" if ours or not line["ratios"] else " to ".join(map(short, line["ratios"]))
    ratio = "" if ours or line["ratio"] is None else short(line["ratio"])
    quality = "" if line["quality"] is None else f"{line['measure']} {digits(line)}"
    peak = "" if line["peak_mib"] is None else f"{line['peak_mib']:.0f}"
    return duration(line), ratio, low_high, quality, peak


def short(ratio):
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def duration(line):
    if line["case"] == "predict":
        return f"{1e-6 / line['seconds']:.2f} M rows/s"
    if line["case"] == "one_row":
        return f"{line['seconds'] * 1e6:.1f} µs"
    prepare = f" ({line['prepare_s']:.3f} s of it prepare)" if line["prepare_s"] else ""
    return f"{line['seconds']:.3f} s{prepare}"


def digits(line):
    return f"{line['quality']:.1f}" if line["case"] == "diamonds" else f"{line['quality']:.5f}"


def as_markdown(options, versions, cpus, load, cases, failures):
    text = ["# Benchmarks", ""]
    text += ["DML beside other libraries on the same two cores, tables and parameters. This page is written by", ""]
    text += ["```sh no-run", options.words, "```", ""]
    there = [f"{name} {version}" for name, version in versions.items() if version]
    text += [f"- Machine: {machine(cpus)}; load before the run {load:.1f}.",
             f"- DML at commit {commit()}, {tool('rustc', '--version')}, Python {platform.python_version()}.",
             f"- {', '.join(there)}.",
             f"- {options.rows:,} rows, each measured {counted(options.repeat)}."]
    absent = [name for name, version in versions.items() if not version]
    if absent:
        text.append(f"- Could not be installed, and left out: {', '.join(absent)}.")
    text += [f"- {case}: {rival} failed ({why})." for (case, rival), why in failures.items()]
    behind = []
    for lines in cases.values():
        for name in dict.fromkeys(line["case"] for line in lines):
            title = TITLES[name].format(rows=f"{options.rows:,}", small=f"{options.rows // 10:,}")
            text += ["", f"## {title}", ""]
            text += ["| library | time | ratio | from to | quality | peak MiB |", "|---|---|---|---|---|---|"]
            for line in (line for line in lines if line["case"] == name):
                text.append("| " + " | ".join([line["rival"], *cells(line)]) + " |")
                if not line["rival"].startswith("dml") and line["ratio"] and line["ratio"] > 1:
                    behind.append(f"- {title}: {line['rival']} takes {short(1 / line['ratio'])} of DML's time.")
    text += ["", "## Where DML is slower", "", *(behind or ["Nowhere in this run."]), "", REMARKS]
    return "\n".join(text)


def counted(times):
    return {1: "once", 2: "twice"}.get(times, f"{times} times")


def machine(cpus):
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cores = f"cores {', '.join(map(str, cpus))}"
    return f"{names[0] if names else platform.processor()}, {cores}, {platform.system()} {platform.machine()}"


def commit():
    # The page itself is being written.
    changes = tool("git", "status", "--porcelain", "-uno", "--", ":/", ":(top,exclude)docs")
    return tool("git", "rev-parse", "--short", "HEAD") + (" with changes" if changes else "")


def tool(*words):
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() if done.returncode == 0 else f"(no {words[0]})"
