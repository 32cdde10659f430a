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
# Flash and RAM of the firmware itself, by section; code is all of flash but the model and the self-test's images.
sections() {
    BOARD=$1 ./build.sh "$2" >"$work/build.log" 2>&1 || { tail -20 "$work/build.log" >&2; exit 1; }
    local carried
    carried=$(cat "target/carried/$1/$3"/{model,golden}.bin | wc -c)
    readelf -S -W "target/images/$1/$3" | "$python" -c '
import re, sys
found = {m[1]: int(m[2], 16) for m in (re.match(r" +\[ *\d+\] (\.\S+) +\S+ +[0-9a-f]+ [0-9a-f]+ ([0-9a-f]+)", line) for line in sys.stdin) if m}
flash = [".vector_table", ".start_block", ".text", ".rodata", ".data", ".program_hash"]
print("  flash", *(f"{name} {found[name]}" for name in flash if name in found))
print("  code without model and self-test images", sum(found.get(name, 0) for name in flash) - int(sys.argv[1]))
print("  RAM without stack", *(f"{name} {found[name]}" for name in [".data", ".bss", ".uninit", ".kept"] if name in found))
' "$carried"
}

for core in "m4 mps2-an386 cortex-m4" "m33 mps2-an505 cortex-m33" "m55 mps3-an547 cortex-m55"; do
    read -r short board cpu <<<"$core"
    for bundle in "$work/plain" ../models/cifar10-resnet8-pm; do
        name=$(basename "$bundle")
        BOARD=$board PROGRAM=inference ./build.sh "$bundle" >"$work/build.log" 2>&1 || { tail -20 "$work/build.log" >&2; exit 1; }
        qemu-system-arm -cpu "$cpu" -machine "$board" -display none -monitor none -serial none \
            -semihosting-config enable=on,target=native -plugin "$work/profile.so" -d plugin -D "$work/log" \
            -kernel "target/images/$board-inference/$name" </dev/null
        target/host/release/cycles "$work/log" "$bundle" "$name" "$short"
        [ "$name" = plain ] || sections "$board" "$bundle" "$name"
    done
done
grep -m1 'model name' /proc/cpuinfo || true
