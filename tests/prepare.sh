# Sourced by the tests that need more than cargo: `root` of the project, `work` for files, which is removed in the end with
# all that runs in the background, `programs` as they are built, and `python` with the packages that are asked for.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT
# With the features that all tests have together, so that nothing is compiled once more.
cargo build --locked --manifest-path "$root/Cargo.toml" --workspace --bins --examples
programs=${CARGO_TARGET_DIR:-$root/target}/debug
python=$work/venv/bin/python

packages() {
    python3 -m venv "$work/venv"
    "$python" -m pip install --quiet --disable-pip-version-check "$@"
}

# Starts a whole cluster of one process there, and waits until it is ready.
cluster() {
    "$programs/dml" --data "$work/data" up --listen "${1#http://}" >"$work/log" 2>&1 &
    for _ in $(seq 100); do curl -sf "$1/readyz" >/dev/null && break || sleep 0.1; done
}
