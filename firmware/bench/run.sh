#!/usr/bin/env bash
# run.sh PYTHON: instructions and modelled cycles of ResNet-8 on a Cortex-M4, M33 and M55, counted in QEMU: MLPerf Tiny's network, made
# and imported here, and a committed bundle. PYTHON has numpy and onnx. `make bench-firmware` calls it.
set -euo pipefail
python=$1
cd "$(dirname "$0")/.."
work=$PWD/target/bench
mkdir -p "$work"
gcc -O2 -fPIC -shared -o "$work/profile.so" bench/profile.c
if [ ! -e "$work/plain/model.pmq" ]; then
    "$python" bench/mlperf_tiny.py "$work/mlperf"
    ../target/release/train import-onnx "$work/mlperf/resnet8.onnx" --calibrate "$work/mlperf/pictures" --out "$work/plain" \
        --quantise min-max >"$work/import.log" 2>&1 || { tail -5 "$work/import.log" >&2; exit 1; }
fi
for core in "m4 mps2-an386 cortex-m4" "m33 mps2-an505 cortex-m33" "m55 mps3-an547 cortex-m55"; do
    read -r short board cpu <<<"$core"
    for bundle in "$work/plain" ../models/cifar10-resnet8-pm; do
        name=$(basename "$bundle")
        BOARD=$board PROGRAM=inference ./build.sh "$bundle" >"$work/build.log" 2>&1 || { tail -20 "$work/build.log" >&2; exit 1; }
        qemu-system-arm -cpu "$cpu" -machine "$board" -display none -monitor none -serial none \
            -semihosting-config enable=on,target=native -plugin "$work/profile.so" -d plugin -D "$work/log" \
            -kernel "target/images/$board-inference/$name" </dev/null
        target/host/release/cycles "$work/log" "$bundle" "$name" "$short"
        llvm-size -A "target/images/$board/$name" 2>/dev/null || true
    done
done
grep -m1 'model name' /proc/cpuinfo || true
