#!/bin/sh
# Records random text maps with what crushtool (16.2.15, Debian package ceph-base) compiles and decompiles them to.
set -eu
cd "$(dirname "$0")/../.."
for seed in $(seq 1 24); do
    base=tests/data/text/random-$seed
    cargo run --quiet --example random_text -- "$seed" > "$base.txt"
    crushtool -c "$base.txt" -o "$base.bin"
    crushtool -d "$base.bin" -o "$base.decompiled"
done
