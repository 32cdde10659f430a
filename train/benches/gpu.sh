#!/bin/bash
# Everything that needs a GPU, in one run: gradients against the CPU, a step against PyTorch, a training run.
#
#   train/benches/gpu.sh OUT [DATA]
#
# OUT gets the log and the run folders. DATA is a folder of CIFAR-10 pictures (train/CLASS, test/CLASS); without it the
# embedded Fashion-MNIST is trained. TRAIN, STEP and PYTHON name the programs that `make cuda` built and a Python with
# PyTorch for CUDA; where CUDA's libraries are not the system's, LD_LIBRARY_PATH must name them.
set -uo pipefail
cd "$(dirname "$0")/../.."
OUT=${1:?folder for results}
TRAIN=${TRAIN:-target/cuda/train}
STEP=${STEP:-target/cuda/step}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
if [ -z "${LD_LIBRARY_PATH:-}" ]; then
    # PyTorch's wheels bring the libraries.
    SITE=$("$PYTHON" -c 'import nvidia, os; print(list(nvidia.__path__)[0])' 2>/dev/null || true)
    LD_LIBRARY_PATH=$(find "$SITE" -name 'lib*.so*' -printf '%h\n' 2>/dev/null | sort -u | paste -sd:)
    export LD_LIBRARY_PATH
fi
exec > >(tee "$OUT/log.txt") 2>&1
status=0
"$TRAIN" gpu-check || status=1
"$STEP" --gpu "$PYTHON" || status=1
if [ -n "${2:-}" ]; then
    for seed in 0 1; do
        run=$OUT/cifar10-resnet20-$seed
        "$TRAIN" fit --config train/configs/cifar10-resnet20-standard.toml --data "$2" --seed $seed \
            --set fit.device=cuda --set fit.precision=bf16 --resume --out "$run" || status=1
        "$TRAIN" evaluate --run "$run" --attacks fgsm --n 10000 || status=1
    done
else
    "$TRAIN" fit --config train/configs/fashion-mnist-paradise-pm.toml --set fit.device=cuda --resume \
        --out "$OUT/fashion-mnist" || status=1
fi
exit $status
