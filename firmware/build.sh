#!/usr/bin/env bash
# build.sh [BUNDLE...]: a Cortex-M4F image of each bundle, by default of every one in models/ whose model.pmq has at most a
# mebibyte, as target/images/NAME.
# With rustup's target where it is installed, otherwise with Debian's compiler and its own standard-library source
# (packages rustc-web, cargo-web, rust-web-src).
set -euo pipefail
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
target=thumbv7em-none-eabihf
export DEFMT_LOG=info
if rustup target list --installed 2>/dev/null | grep -q "^$target$"; then
    build=(cargo build --release)
elif [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ]; then
    host=$(rustc -vV | sed -n 's/^host: //p')
    linker="$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld"
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="-C linker=$linker"
    build=(/usr/bin/cargo build --release -Zbuild-std=core)
else
    echo "firmware: needs 'rustup target add $target', or Debian's rustc-web, cargo-web and rust-web-src" >&2
    exit 1
fi
mkdir -p target/images
while read -r bundle; do
    PARADISE_BUNDLE=$bundle "${build[@]}" --target "$target"
    cp "target/$target/release/paradise-firmware" "target/images/${bundle##*/}"
    echo "firmware/target/images/${bundle##*/}"
done <<< "$bundles"
