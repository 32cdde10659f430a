#!/usr/bin/env bash
# reports.sh DIR [PART...]: what reports/ says beyond the bundles' own comparison, on ResNet-8 and on nets as small as a CPU
# trains. DIR is CIFAR-10 as train/CLASS and test/CLASS. Parts: table4 matching search unsupervised ablation timing; all by
# default, some six hours on two cores. Interrupted, the same command goes on; `train/models.sh cifar DIR` comes first.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:?the folder of CIFAR-10}
shift
train=${TRAIN:-target/release/train}
[ -x "$train" ] || { echo "reports.sh: $train is missing: cargo build --release" >&2; exit 2; }
parts=${*:-table4 matching search unsupervised ablation timing}
for part in $parts; do
    case $part in
    table4 | matching | search | unsupervised | ablation | timing) ;;
    *) echo "reports.sh: there is no part $part" >&2; exit 2 ;;
    esac
done
runs=runs/reports
# The undefended model of table 4 and of the masking checks.
standard=runs/cifar/standard

# fit NAME KEY=VALUE...: a ResNet-8 on CIFAR-10
fit() {
    local name=$1 changes=()
    shift
    for change in "$@"; do changes+=(--set "$change"); done
    "$train" fit --config train/configs/models/cifar10-resnet8-pm.toml --data "$data" --out $runs/"$name" --resume \
        --set fit.epochs=20 "${changes[@]}"
}
# attack NAME ATTACKS
attack() {
    "$train" evaluate --run $runs/"$1" --surrogate $standard --attacks "$2" --n 300 --out $runs/"$1/${2//,/-}"
}

table4() {
    local dvib=() evaluations=()
    for alpha in 1e-3 1e-4 0; do
        fit dvib-$alpha objective.kind=dvib objective.alpha=$alpha fit.select=clean
        attack dvib-$alpha fgsm,autoattack
        dvib+=($runs/dvib-$alpha) evaluations+=(alpha-$alpha=$runs/dvib-$alpha/fgsm-autoattack)
    done
    "$train" report table4 "${dvib[@]}" --surrogate $standard --out reports/table-4.md
    "$train" compare "${evaluations[@]}" --out reports/table-4-autoattack.md
}

matching() {
    local evaluations=()
    for row in paradise-pm:1e-4 dvib-pm:1e-5; do
        local name=${row%:*}
        fit "$name" objective.kind="$name" objective.alpha="${row#*:}"
        attack "$name" supplement,autoattack
        evaluations+=("$name=$runs/$name/supplement-autoattack")
    done
    "$train" compare "${evaluations[@]}" --out reports/matching-cifar10.md
}

search() {
    "$train" sweep --config train/configs/models/cifar10-resnet8-pm.toml --data "$data" --set fit.epochs=10 \
        --gammas 10,25,50 --out $runs/search
    cp $runs/search/search.md reports/search-cifar10.md
    cp $runs/search/search.png reports/search-cifar10.png
}

unsupervised() {
    local run=$runs/unsupervised
    "$train" fit --config train/configs/fashion-mnist-mlp-unsupervised.toml --out $run --resume
    "$train" report figure1 $run --out reports/figure-1-fashion-mnist.png
    "$train" report figure2 $run --out reports/figure-2-fashion-mnist.png
}

ablation() {
    make method-seeds
}

# Seconds of an epoch of each network that a GPU should train, from a part of the images.
timing() {
    local net
    for net in resnet-32 resnet-56 resnet-110; do
        "$train" fit --config train/configs/models/cifar10-resnet20-pm.toml --data "$data" --out $runs/time-$net --resume \
            --set encoder.kind=$net --set objective.kind=paradise --set fit.select=clean --set fit.epochs=1 \
            --set data.train_images=5000
    done
    "$train" fit --config train/configs/models/cifar10-wrn16-4-am.toml --data "$data" --out $runs/time-wrn-16-4 --resume \
        --set fit.epochs=1 --set fit.select=clean --set data.train_images=2000
    for net in resnet-32 resnet-56 resnet-110 wrn-16-4; do
        echo "$net: $(sed 's/.*"seconds":\([0-9.]*\).*/\1 s/' $runs/time-$net/metrics.jsonl)"
    done
}

for part in $parts; do
    "$part"
    echo "$(date +%H:%M:%S) $part"
done
