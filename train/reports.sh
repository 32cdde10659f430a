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
# models.sh's: the undefended model, for table 4 and the masking checks, and the bundle's.
standard=runs/cifar/standard
pm=runs/cifar/pm

# fit NAME KEY=VALUE...: a ResNet-8 on CIFAR-10
fit() {
    local name=$1 changes=()
    shift
    for change in "$@"; do changes+=(--set "$change"); done
    "$train" fit --config train/configs/models/cifar10-resnet8-pm.toml --data "$data" --out $runs/"$name" --resume \
        "${changes[@]}"
}
# attack RUN ATTACKS OUT
attack() {
    "$train" evaluate --run "$1" --surrogate $standard --attacks "$2" --n 300 --out "$3"
}

# NET=wrn-16-4 on a GPU, with the undefended WRN-16-4 of `train/models.sh wrn DIR`; 15 epochs there.
table4() {
    local dvib=() evaluations=() net=${NET:-resnet-8} epochs=12 standard=$standard
    if [ "$net" = wrn-16-4 ]; then standard=runs/wrn/standard epochs=15; fi
    for alpha in 1e-3 1e-4 0; do
        local run=$runs/$net-dvib-$alpha
        fit $net-dvib-$alpha encoder.kind=$net objective.kind=dvib objective.alpha=$alpha fit.select=clean fit.epochs=$epochs
        attack $run fgsm,autoattack $run/attacks
        dvib+=($run) evaluations+=(alpha-$alpha=$run/attacks)
    done
    "$train" report table4 "${dvib[@]}" --surrogate $standard --out reports/table-4.md
    "$train" compare "${evaluations[@]}" --out reports/table-4-autoattack.md
}

# dvib-pm beside the bundle's paradise-pm, each at the alpha that the supplement found best for it.
matching() {
    fit dvib-pm objective.kind=dvib-pm objective.alpha=1e-5
    attack $pm supplement,autoattack $runs/paradise-pm-attacks
    attack $runs/dvib-pm supplement,autoattack $runs/dvib-pm/attacks
    "$train" compare paradise-pm=$runs/paradise-pm-attacks dvib-pm=$runs/dvib-pm/attacks --out reports/matching-cifar10.md
}

search() {
    "$train" sweep --config train/configs/models/cifar10-resnet8-pm.toml --data "$data" --set fit.epochs=6 --epochs 3 \
        --set data.train_images=25000 --gammas 10,25,50 --out $runs/search
    cp $runs/search/search.md reports/search-cifar10.md
    cp $runs/search/search.png reports/search-cifar10.png
}

unsupervised() {
    local run=$runs/unsupervised
    "$train" fit --config train/configs/fashion-mnist-mlp-unsupervised.toml --out $run --resume \
        --set fit.epochs=15
    "$train" report figure1 $run --out reports/figure-1-fashion-mnist.png
    "$train" report figure2 $run --out reports/figure-2-fashion-mnist.png
}

# What the rate term and the matching term each bring, and both, over five seeds of a small net on Fashion-MNIST.
ablation() {
    local evaluations=()
    for row in neither:paradise:0:0 rate:paradise:1e-4:0 matching:paradise-pm:0:10 both:paradise-pm:1e-4:10 \
        both-dvib:dvib-pm:1e-3:10; do
        local name kind alpha gamma seed
        IFS=: read -r name kind alpha gamma <<<"$row"
        for seed in 0 1 2 3 4; do
            local run=$runs/ablation/$name-$seed
            "$train" fit --config train/configs/method-table.toml --seed $seed --set objective.kind=$kind \
                --set objective.alpha=$alpha --set objective.gamma=$gamma --out $run --resume
            "$train" evaluate --run $run --attacks apgd-ce,apgd-t --eps 8/255,4/255 --n 1000 --no-checks \
                --out $run/attacks
            evaluations+=("$name=$run/attacks")
        done
    done
    "$train" compare "${evaluations[@]}" --out reports/ablation-fashion-mnist.md
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
