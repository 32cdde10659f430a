#!/bin/bash
# An aarch64 Python with LiteRT and ONNX Runtime in the folder $1, to be run by qemu-aarch64 -L $1: Debian's packages and PyPI's
# wheels, unpacked. Asks apt for packages of another architecture, so it wants root, as installing packages does.
set -euo pipefail
root=$(realpath -m "$1")
here=$(dirname "$(realpath "$0")")
apt=${APT:-apt-get}
mkdir -p "$root/packages" "$root/wheels" "$root/site"
dpkg --print-foreign-architectures | grep -x arm64 >/dev/null || { dpkg --add-architecture arm64; $apt update -qq; }
version=$(apt-cache depends python3:arm64 | sed -n 's/.*Depends: \(python3\.[0-9]*\):.*/\1/p' | sed -n 1p)
( cd "$root/packages"
  $apt download -qq "$version-minimal:arm64" "lib$version-minimal:arm64" "lib$version-stdlib:arm64" \
    libc6:arm64 libstdc++6:arm64 libgcc-s1:arm64 zlib1g:arm64 libexpat1:arm64 libssl3:arm64 libffi8:arm64 libbz2-1.0:arm64 liblzma5:arm64
  for package in *.deb; do dpkg-deb -x "$package" "$root"; done )
pip=${PIP:-python3 -m pip}
# The versions of the peers here, by the files of their dependencies that these two need.
wanted=$(sed -nE 's/^((ai-edge-litert|onnxruntime|numpy)==.*)$/\1/p' "$here/../peers.txt")
$pip download --quiet --only-binary=:all: --python-version "${version#python}" --implementation cp --dest "$root/wheels" \
  --platform manylinux_2_34_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 --platform any \
  $wanted
for wheel in "$root"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$root/site"; done
ln -sf "$version" "$root/usr/bin/python3"
