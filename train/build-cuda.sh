#!/bin/bash
# Builds the trainer for NVIDIA GPUs, with or without one in this machine: target/cuda/train, and the benchmark of a step,
# target/cuda/step. With an argument `check`, only compiles (Rust and the GPU's kernels).
#
# A CUDA toolkit on the PATH is used where there is one; else NVIDIA's wheels are put into .venv-cuda.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
STUBS=$PWD/target/cuda/stubs

if command -v nvcc >/dev/null && [ -z "${PARADISE_CUDA_WHEELS:-}" ]; then
    ROOT=${CUDA_HOME:-$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")}
else
    if ! [ -e .venv-cuda/.ready ]; then
        "$PYTHON" -m venv .venv-cuda
        .venv-cuda/bin/pip install --quiet --requirement train/cuda-requirements.txt
        touch .venv-cuda/.ready
    fi
    ROOT=$(echo "$PWD"/.venv-cuda/lib/python3*/site-packages/nvidia/cu13)
    # The wheels lack the names without a version that a linker looks for.
    mkdir -p "$STUBS"
    for library in "$ROOT"/lib/lib*.so.* "$ROOT"/../cudnn/lib/lib*.so.*; do
        name=$(basename "$library")
        ln -sf "$library" "$STUBS/${name%%.so.*}.so"
    done
fi
mkdir -p "$STUBS"
# libcuda comes with the driver, which a machine without a GPU has not.
echo | gcc -shared -Wl,-soname,libcuda.so.1 -x c - -o "$STUBS/libcuda.so"
export CUDA_HOME=$ROOT CUDA_PATH=$ROOT CUDA_ROOT=$ROOT CUDA_TOOLKIT_ROOT_DIR=$ROOT PATH=$ROOT/bin:$PATH
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90} CARGO_TARGET_DIR=target/cuda

# With a target named, these flags reach the programs and not the build scripts, which have to run here.
TARGET=x86_64-unknown-linux-gnu
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-L $STUBS -C link-arg=-Wl,--no-as-needed -C link-arg=-lcuda -C link-arg=-Wl,--unresolved-symbols=ignore-all"
# PARADISE_MPI=1 builds in what ranks need, one a GPU; such a trainer starts only where MPI is.
FEATURES=cuda${PARADISE_MPI:+,mpi}
WITH=(--release --package paradise-train --features "$FEATURES" --target $TARGET)

nvcc -ptx -arch=compute_80 train/nn/src/cuda/kernels.cu -o target/cuda/kernels.ptx
if [ "${1:-}" = check ]; then
    exec cargo clippy "${WITH[@]}" --all-targets -- -D warnings
fi
cargo build "${WITH[@]}" --bin train --bench step
BUILT=target/cuda/$TARGET/release
cp "$BUILT/train" target/cuda/train
cp "$(ls -t "$BUILT"/deps/step-* | grep -v '\.d$' | head -1)" target/cuda/step
strip target/cuda/train target/cuda/step
ls -l target/cuda/train target/cuda/step
