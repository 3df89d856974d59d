"""How time and memory grow with the rows: the same fits on 100,000, a million and ten million rows, the reading of a CSV
file, and everything that `dml train FILE.csv` does, in one process. Writes docs/scale.md and docs/scale.svg.

    python3 benches/scale.py [--rows 100000,1000000,10000000] [--work DIRECTORY]

Needs cargo, some 20 GB of disk and 12 GiB of memory for ten million rows: reading a CSV is measured with all columns kept.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benches" / "peers"))
import files  # noqa: E402
import report  # noqa: E402

CASES = {
    "csv": "CSV to typed columns, 29 columns",
    "ridge": "ridge, 20 columns",
    "gaussian_nb": "gaussian_nb, 28 columns",
    "logistic": "logistic, 28 columns",
    "tree": "decision_tree, depth 10, 28 columns",
    "boosting": "gradient_boosting, 100 iterations, 28 columns",
    "train": "`dml train`, from the CSV file to the leaderboard: gradient_boosting, 100 iterations",
}


def main():
    parser = argparse.ArgumentParser(prog="python3 benches/scale.py")
    parser.add_argument("--rows", default="100000,1000000,10000000", help="how many, separated by commas")
    parser.add_argument("--work", type=Path, default=ROOT / "target" / "scale", help="where tables are written")
    parser.add_argument("--peers", type=Path, help="the program of benches/peers, if it is not to be built")
    parser.add_argument("--dml", type=Path, help="dml, if it is not to be built")
    options = parser.parse_args()
    counts = sorted(int(count) for count in options.rows.split(","))
    peers = options.peers or built("bench", "--bench", "peers", "--no-run")
    dml = options.dml or built("build", "--release", "--bin", "dml")
    data = options.work / "data"
    measured = {case: {} for case in CASES}
    for count in counts:
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True)
        print(f"writing tables of {count:,} rows below {data}", flush=True)
        subprocess.run([peers, "data", data, str(count)], check=True)
        for case in CASES:
            files.warm(data)
            measured[case][count] = train(dml, data) if case == "train" else library(peers, case, data)
            seconds, mib = measured[case][count]
            print(f"{case:<12} {count:>12,} rows {seconds:>9.3f} s {mib:>8.0f} MiB", flush=True)
    shutil.rmtree(data)
    (ROOT / "docs" / "scale.svg").write_text(picture(measured))
    (ROOT / "docs" / "scale.md").write_text(page(measured, counts))


def built(*words):
    """The program that cargo builds."""
    said = ["cargo", *words, "--locked", "-p", "dml-bins" if "dml" in words else "dml", "--message-format", "json"]
    done = subprocess.run(said, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    programs = [json.loads(line).get("executable") for line in done.stdout.splitlines() if line.startswith("{")]
    return [program for program in programs if program][-1]


def library(peers, case, data):
    """A fit by the library, or the reading of the CSV, in a process of its own."""
    words = ["csv", data] if case == "csv" else ["fit", case, data, "disk", data / "said.f64"]
    done = subprocess.run([peers, *words], check=True, stdout=subprocess.PIPE, text=True)
    said = json.loads(done.stdout.splitlines()[-1])
    return said["seconds"], said["peak_mib"]


def train(dml, data):
    """The command, with a node of its own on the disk; memory is that of the process at its peak."""
    words = [dml, "--data", data / "node", "train", data / "table.csv", "--target", "y", "--task", "classification"]
    words += ["--model", "gradient_boosting:n_estimators=100,max_leaves=31"]
    start = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"dml train ended with the status {status}")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def page(measured, counts):
    text = ["# How cost grows with the rows", ""]
    text += ["Time and memory for tables of different sizes, on one machine. `python3 benches/scale.py` writes this page.", ""]
    cpus = sorted(os.sched_getaffinity(0))
    text += [f"- Machine: {report.machine(cpus)}. DML at commit {report.commit()}. Each is measured once.", ""]
    text += ["![Seconds by rows, both on logarithmic axes: all lines rise as the rows do](scale.svg)", ""]
    heads = [f"{count:,} rows" for count in counts]
    text += ["| work | " + " | ".join(heads) + " | a million rows at the last, of that at the first |"]
    text += ["|---" * (len(counts) + 2) + "|"]
    for case, by_rows in measured.items():
        cells = [f"{seconds:.2f} s, {mib:.0f} MiB" for seconds, mib in by_rows.values()]
        first, last = (by_rows[count][0] / count for count in (counts[0], counts[-1]))
        text.append(f"| {CASES[case]} | " + " | ".join(cells) + f" | {last / first:.2f} |")
    text += ["", REMARKS]
    return "\n".join(text)


REMARKS = """\
- Memory is the peak of the whole process. A fit reads chunks again and again from files and keeps encoded rows within a bound
  (a 32nd of the machine's memory, 64 to 512 MiB), so it grows more slowly than the table, and what does not fit is encoded
  anew in each round. Reading a CSV is measured with all columns kept.
- Files are in the system's memory when they are read.
- `dml train` has the node, the upload, the statistics, the fit and the evaluation on a fifth of the rows in one process.
"""

# ---- The picture.

LEFT, TOP, WIDTH, HEIGHT = 64, 48, 560, 380
COLORS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#777777"]


def picture(measured):
    points = [(rows, seconds) for by_rows in measured.values() for rows, (seconds, _) in by_rows.items()]
    across, up = (decades(values) for values in zip(*points))

    def place(rows, seconds):
        x = LEFT + WIDTH * (math.log10(rows) - across[0]) / (across[-1] - across[0])
        y = TOP + HEIGHT * (up[-1] - math.log10(seconds)) / (up[-1] - up[0])
        return f"{x:.1f},{y:.1f}"

    lines = []
    for power in across:
        x, _ = place(10**power, 10 ** up[0]).split(",")
        lines.append(f'<path class="grid" d="M{x} {TOP}v{HEIGHT}"/>')
        lines.append(f'<text x="{x}" y="{TOP + HEIGHT + 20}" text-anchor="middle">{10**power:,} rows</text>')
    for power in up:
        _, y = place(10 ** across[0], 10**power).split(",")
        lines.append(f'<path class="grid" d="M{LEFT} {y}h{WIDTH}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{10**power:g} s</text>')
    for number, (case, by_rows) in enumerate(measured.items()):
        color = COLORS[number]
        path = " ".join(place(rows, seconds) for rows, (seconds, _) in by_rows.items())
        y = TOP + 12 + 22 * number
        lines.append(f'<polyline points="{path}" stroke="{color}"/>')
        lines += [f'<circle cx="{at.split(",")[0]}" cy="{at.split(",")[1]}" r="4" fill="{color}"/>' for at in path.split()]
        lines.append(f'<path stroke="{color}" d="M{LEFT + WIDTH + 20} {y - 4}h24"/>')
        lines.append(f'<text x="{LEFT + WIDTH + 52}" y="{y}">{"dml train" if case == "train" else case}</text>')
    style = "text{font:13px sans-serif;fill:#333}polyline,path{fill:none;stroke-width:2}.grid{stroke:#8884;stroke-width:1}"
    style += "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 180} {TOP + HEIGHT + 40}" role="img">'
    title = "<title>Seconds by rows, on logarithmic axes</title>"
    return "\n".join([head, title, f"<style>{style}</style>", *lines, "</svg>", ""])


def decades(values):
    """The powers of ten around all values."""
    powers = [math.log10(value) for value in values]
    return list(range(math.floor(min(powers) + 1e-9), math.ceil(max(powers) - 1e-9) + 1))


if __name__ == "__main__":
    main()
