#!/bin/sh
# What tests and demo need of a Debian or Ubuntu host; installs only what is missing, and says so.
# NUMAD_PY_NO_GUEST=1 leaves out what guests need; the word "bench" adds what is measured against.
set -eu
PATH=$PATH:/usr/sbin:/sbin
missing=
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
have() { [ -e "$1" ] || missing="$missing $2"; }

need python3 python3
need gcc gcc
need setpriv util-linux
need systemd-analyze systemd
have /usr/include/stdio.h libc6-dev
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
python3 -c 'import ctypes; ctypes.CDLL("libudev.so.1")' 2>/dev/null || missing="$missing libudev1"
if [ -z "${NUMAD_PY_NO_GUEST:-}" ]; then
    need qemu-system-x86_64 qemu-system-x86
    need qemu-img qemu-utils
    need mmdebstrap mmdebstrap
    need mke2fs e2fsprogs
    need ssh openssh-client
    have /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
fi
[ "${1:-}" != bench ] || need numastat numactl
[ -n "$missing" ] || exit 0

echo "this machine lacks, and gets from its package archive:$missing"
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1; then
    as_root=sudo
else
    echo "setup-host.sh: neither root nor sudo; as root, run: apt-get install$missing" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup-host.sh: no apt-get here; install by hand:$missing" >&2
    exit 1
fi
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
