#!/usr/bin/env bash
# Coverage-guided fuzzing of the parsers and of inference, or of where pictures enter:
# run.sh [hostile|pictures] [SECONDS, default 1800] [more libFuzzer options].
# Needs a C++ compiler and stable Rust; instruments by compiler options that cargo-fuzz also passes, with overflow checks
# and debug assertions on. Finds go to engine/fuzz/finds/, the growing corpus to target/fuzz/corpus-TARGET.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=hostile
package=paradise-engine-fuzz
seeds=engine/fuzz/corpus
case "${1-}" in
hostile) shift ;;
pictures)
    shift
    target=pictures
    package=paradise-picture-fuzz
    # Pictures of every format, as the smoke test begins with, are in the target's own first runs.
    seeds=tests/golden
    ;;
esac
seconds=${1:-1800}
shift || true
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks"
host=$(rustc -vV | sed -n 's/^host: //p')
# An explicit target keeps the instrumentation out of build scripts.
cargo build --release --package "$package" --features libfuzzer --target "$host" --target-dir target/fuzz
mkdir -p "target/fuzz/corpus-$target" engine/fuzz/finds
exec "target/fuzz/$host/release/$target" "target/fuzz/corpus-$target" "$seeds" -artifact_prefix=engine/fuzz/finds/ \
    -max_len=32768 -timeout=10 -rss_limit_mb=2048 -max_total_time="$seconds" "$@"
