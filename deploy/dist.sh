#!/bin/sh
# Programs that need nothing of the machine that they run on, in dist/; with them, an empty directory for the data of a
# container. The target is named so that what is compiled for this machine alone, macros and build scripts, is not static.
set -eu
cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile dist -p dml-bins --target "$target"
rm -rf dist
mkdir -p dist/data
for program in dml db worker; do
    cp "target/$target/dist/$program" "dist/$program"
done
