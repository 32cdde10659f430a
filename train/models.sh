#!/usr/bin/env bash
# models.sh fashion [DIR] | cifar DIR | wrn DIR: trains the bundles of a ResNet-8 on Fashion-MNIST or CIFAR-10, or (on a
# GPU) of WRN-16-4, and what they are compared with, attacks all at the same radii, exports and compares. Interrupted, the
# same command goes on. Hours on a CPU: a line says when each ended.
# DIR: the full Fashion-MNIST (Debian's by default); CIFAR-10 as train/CLASS and test/CLASS. FOREIGN=NAME=DIR is one
# more data set for the cards. STEPS (fit attack export) leaves the others out, EPOCHS shortens adversarial runs.
set -euo pipefail
cd "$(dirname "$0")/.."
set=${1:?fashion, cifar or wrn}
train=${TRAIN:-target/release/train}
steps=${STEPS:-fit attack export}
# How the undefended model is trained; what is trained and attacked beside it, and how far; what becomes a bundle; radii of
# the curves.
case $set in
fashion)
    prefix=fashion-mnist-resnet8 radii=4/255,8/255,16/255,25.5/255,32/255
    undefended="pm objective.kind=standard fit.select=clean"
    attacks="am:0.1 pgd-at:0.1 trades:0.1 pm:8/255 standard:8/255" bundles="am:0.1 pm:8/255"
    data=${2:-/usr/share/datasets/fashion-mnist}
    ;;
cifar)
    prefix=cifar10-resnet8 radii=1/255,2/255,4/255,8/255,12/255,16/255
    undefended=standard
    # The last epochs see the pictures where they are: blocks of JPEG files then lie as in the test images.
    finish="data.shift=0 fit.epochs=8 fit.peak_rate=0.02 fit.schedule=cosine"
    attacks="am:8/255 pgd-at:8/255 pm:8/255 standard:8/255" bundles="am:8/255 pm:8/255"
    # CIFAR-10 comes without a licence to pass it on: a bundle's self-test gets pictures that its network draws.
    export_options="--probes drawn"
    data=${2:?the folder of CIFAR-10}
    ;;
wrn)
    prefix=cifar10-wrn16-4 radii=1/255,2/255,4/255,8/255,12/255,16/255
    undefended="am objective.kind=standard fit.select=clean"
    attacks="am:8/255 pgd-at:8/255" bundles=am:8/255
    # All bundles together stay below 20 MB; the float network alone would be 11. The evaluation holds masking checks.
    export_options="--no-float --no-checks --n 1000 --probes drawn"
    data=${2:?the folder of CIFAR-10}
    ;;
*) echo "models.sh: fashion, cifar or wrn, not $set" >&2; exit 2 ;;
esac
for step in $steps; do
    case $step in
    fit | attack | export) ;;
    *) echo "models.sh: STEPS are fit, attack and export, not $step" >&2; exit 2 ;;
    esac
done
[ -x "$train" ] || { echo "models.sh: $train is missing: cargo build --release" >&2; exit 2; }
runs=runs/$set

say() { echo "$(date +%H:%M:%S) $*"; }
# fit NAME CONFIGURATION [KEY=VALUE...]
fit() {
    local name=$1 config=train/configs/models/$prefix-$2.toml changes=()
    shift 2
    for change in "$@"; do changes+=(--set "$change"); done
    "$train" fit --config "$config" --data "$data" --out "$runs/$name" --resume "${changes[@]}"
    say "fit $name"
}
# evaluation NAME RADIUS: its folder
evaluation() { echo "$runs/$1/autoattack-${2//\//-}"; }
# attack NAME RADIUS
attack() {
    "$train" evaluate --run "$runs/$1" --surrogate "$runs/standard" --attacks autoattack --eps "$2" --n 1000 \
        ${FOREIGN:+--foreign "$FOREIGN"} --out "$(evaluation "$1" "$2")"
    say "attack $1 at $2"
}
# curve NAME: its accuracy at several radii, by the quickest of the strong attacks
curve() {
    "$train" evaluate --run "$runs/$1" --attacks apgd-ce --eps "$radii" --n 1000 --no-checks --no-confidence \
        --out "$runs/$1/curve"
    say "curve $1"
}
# export_bundle NAME RADIUS
export_bundle() {
    "$train" export --run "$runs/$1" --out "models/$prefix-$1" --eps "$2" --evaluation "$(evaluation "$1" "$2")" \
        ${export_options:-} ${FOREIGN:+--foreign "$FOREIGN"}
    say "export $1"
}

for step in $steps; do
    case $step in
    fit)
        if [ -n "${finish:-}" ]; then
            fit standard-shifted $undefended
            fit standard $undefended fit.from="$runs/standard-shifted" $finish
        else
            fit standard $undefended
        fi
        short=${EPOCHS:+fit.epochs=$EPOCHS}
        for one in $attacks; do
            case ${one%:*} in
            am) fit am am $short ;;
            pgd-at) fit pgd-at am objective.kind=pgd-at $short ;;
            trades) fit trades am objective.kind=trades objective.gamma=6 $short ;;
            pm) fit pm pm ;;
            esac
        done
        ;;
    attack)
        for one in $attacks; do
            attack "${one%:*}" "${one#*:}"
            curve "${one%:*}"
        done
        ;;
    export)
        for one in $bundles; do export_bundle "${one%:*}" "${one#*:}"; done
        for radius in $(printf '%s\n' $attacks | cut -d: -f2 | sort -u); do
            of=()
            for one in $attacks; do
                if [ "${one#*:}" = "$radius" ]; then of+=("${one%:*}=$(evaluation "${one%:*}" "$radius")"); fi
            done
            "$train" compare "${of[@]}" --out "reports/$prefix-${radius//\//-}.md"
        done
        of=()
        for one in $attacks; do of+=("${one%:*}=$runs/${one%:*}/curve"); done
        "$train" compare "${of[@]}" --out "reports/$prefix-curves.md" --picture "reports/$prefix-curves.png"
        ;;
    esac
done
