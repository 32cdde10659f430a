#!/usr/bin/env bash
# For aarch64 Linux, on another machine: `daemon` builds paradised for a Raspberry Pi (64 bit), as it is shipped; `build` what is tried in
# QEMU, in one profile: paradised, and the examples `kernels`, `tensors` and `watch_camera`; `test` runs the engine's tests in QEMU once on a
# CPU with dot products and matrix multiplication and once on one without. With rustup's target where it is installed, otherwise with
# Debian's compiler and its own standard-library source (packages rustc-web, cargo-web, rust-web-src).
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
cargo=(cargo)
std=()
if rustup target list --installed 2>/dev/null | grep -x "$target" >/dev/null; then
    :
elif [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ]; then
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
    cargo=(/usr/bin/cargo)
    std=(-Zbuild-std=std,panic_abort)
else
    echo "aarch64: needs 'rustup target add $target', or Debian's rustc-web, cargo-web and rust-web-src" >&2
    exit 1
fi
run() {
    "${cargo[@]}" "$@" "${std[@]}" --target "$target" --target-dir target/aarch64
}
case "${1-}" in
daemon)
    # As `make package` builds it: without tract, small.
    run build --profile device --package paradise-runtime --no-default-features --features daemon,mcu --bin paradised
    ls -l "target/aarch64/$target/device/paradised"
    ;;
build)
    run build --release --package paradise-engine --package paradise-picture --package paradise-runtime --no-default-features \
        --features paradise-engine/std,paradise-runtime/daemon,paradise-runtime/mcu \
        --bin paradised --example kernels --example tensors --example watch_camera
    ;;
test)
    for cpu in max cortex-a57; do
        echo "engine on aarch64, $cpu in QEMU"
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu $cpu" \
            run test --release --package paradise-engine --features std --lib
    done
    ;;
*)
    echo "usage: $0 daemon|build|test" >&2
    exit 2
    ;;
esac
