#!/usr/bin/env bash
# qemu.sh BUNDLE COMMAND...: from a bundle to a chip's answer without a board. Builds the bundle's image for BOARD (mps2-an386, the
# default, mps2-an500, mps2-an505 or mps3-an547), starts it in QEMU and asks it: `classify PICTURE...`, `info`, `selftest` or `bench`, as
# `paradised mcu` has them. What the firmware logs goes to target/qemu.log. PARADISED names another paradised.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: [BOARD=mps2-an386] qemu.sh BUNDLE classify PICTURE... | info | selftest | bench" >&2
    exit 2
fi
firmware=$(cd "$(dirname "$0")" && pwd)
board=${BOARD:-mps2-an386} bundle=$1 paradised=${PARADISED:-$firmware/../target/release/paradised}
case $board in
mps2-an386) core=cortex-m4 ;;
mps2-an500) core=cortex-m7 ;;
mps2-an505) core=cortex-m33 ;;
mps3-an547) core=cortex-m55 ;;
*)
    echo "qemu.sh: QEMU has no board '$board'; there are mps2-an386, mps2-an500, mps2-an505, mps3-an547" >&2
    exit 2
    ;;
esac
if ! [ -x "$paradised" ]; then
    echo "qemu.sh: $paradised is not there: build it by 'make build'" >&2
    exit 1
fi
shift
[ "$1" != classify ] || set -- classify --model "$bundle" "${@:2}"
BOARD=$board "$firmware/build.sh" "$bundle" >&2
image=$firmware/target/images/$board/$(basename "$(realpath "$bundle")")
log=$firmware/target/qemu.log said=$(mktemp)
qemu-system-arm -cpu "$core" -machine "$board" -display none -monitor none -serial pty \
    -semihosting-config enable=on,target=native -kernel "$image" </dev/null >"$log.defmt" 2>"$said" &
qemu=$!
finish() {
    kill -9 "$qemu" 2>/dev/null || true
    wait "$qemu" 2>/dev/null || true
    print=$firmware/../target/tools/bin/defmt-print
    [ ! -x "$print" ] || "$print" -e "$image" <"$log.defmt" >"$log" 2>/dev/null || true
    rm -f "$said"
}
trap finish EXIT
# QEMU says which terminal stands for the serial port.
for _ in {1..100}; do
    port=$(sed -n 's/.*redirected to \(\S*\) .*/\1/p' "$said" "$log.defmt" 2>/dev/null | sed -n 1p)
    [ -z "$port" ] || break
    sleep 0.1
done
if [ -z "$port" ]; then
    echo "qemu.sh: QEMU did not start: $(cat "$said")" >&2
    exit 1
fi
"$paradised" mcu --port "$port" "$@"
