#!/usr/bin/env bash
# build.sh [BUNDLE...]: an image of each bundle for a board, by default of every one in models/ whose model.pmq has at most a
# mebibyte, as target/images/BOARD/NAME. BOARD=mps2-an386 (the default), mps2-an500, mps2-an505, mps3-an547, nucleo-l4r5zi or
# rp2350. FEATURES=inject builds firmware whose checks can be made to fail; PROGRAM=inference builds what `make bench-firmware` runs,
# into target/images/BOARD-inference.
# With rustup's target where it is installed, otherwise with Debian's compiler and its own standard-library source
# (packages rustc-web, cargo-web, rust-web-src).
set -euo pipefail
board=${BOARD:-mps2-an386} program=${PROGRAM:-paradise-firmware}
case $board in
mps2-an386 | mps2-an500 | nucleo-l4r5zi) target=thumbv7em-none-eabihf cpu=cortex-m4 ;;
mps2-an505 | rp2350) target=thumbv8m.main-none-eabihf cpu=cortex-m33 ;;
mps3-an547) target=thumbv8m.main-none-eabihf cpu=cortex-m55 ;;
*)
    echo "firmware: no board '$board'; there are mps2-an386, mps2-an500, mps2-an505, mps3-an547, nucleo-l4r5zi, rp2350" >&2
    exit 2
    ;;
esac
if [ $# = 0 ]; then
    for bundle in "$(dirname "$0")"/../models/*/; do
        if [ "$(stat -c %s "$bundle/model.pmq")" -le 1048576 ]; then
            set -- "$@" "$bundle"
        else
            echo "$bundle: its model.pmq has more than a mebibyte; name it to build its image all the same"
        fi
    done
fi
bundles=$(realpath "$@")
cd "$(dirname "$0")"
cargo build --quiet --release --features tools --bin seal --bin prepare --bin cycles --target-dir target/host
export DEFMT_LOG=${DEFMT_LOG:-info}
flags="-C target-cpu=$cpu"
if rustup target list --installed 2>/dev/null | grep -x "$target" >/dev/null; then
    build=(cargo build --release)
elif [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ]; then
    host=$(rustc -vV | sed -n 's/^host: //p')
    flags="$flags -C linker=$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld"
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
    build=(/usr/bin/cargo build --release -Zbuild-std=core)
else
    echo "firmware: needs 'rustup target add $target', or Debian's rustc-web, cargo-web and rust-web-src" >&2
    exit 1
fi
export RUSTFLAGS=$flags
folder=target/images/$board${FEATURES:+-${FEATURES//,/-}}
[ "$program" = paradise-firmware ] || folder=$folder-$program
mkdir -p "$folder"
while read -r bundle; do
    carried=$PWD/target/carried/$board/${bundle##*/}
    target/host/release/prepare "$bundle" "$board" "$carried"
    PARADISE_CARRIED=$carried "${build[@]}" --target "$target" --features "$board,$(<"$carried/features")${FEATURES:+,$FEATURES}" --bin "$program"
    cp "target/$target/release/$program" "$folder/${bundle##*/}"
    [ "$program" != paradise-firmware ] || target/host/release/seal "$folder/${bundle##*/}"
done <<< "$bundles"
