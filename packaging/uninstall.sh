#!/bin/sh
# Takes away what install.sh put in place; policy and journal stay unless --purge is given.
set -eu
[ "$(id -u)" = 0 ] || { echo "uninstall.sh: run it as root: sudo $0" >&2; exit 1; }
if [ -d /run/systemd/system ]; then
    # Stopping gives every affinity mask back.
    systemctl disable --now numad-py.service 2>/dev/null || true
fi
rm -f /etc/systemd/system/numad-py.service /usr/lib/sysusers.d/numad-py.conf
rm -f /usr/local/share/man/man8/numad-py.8 /usr/local/share/man/man5/numad-py.toml.5
[ ! -d /run/systemd/system ] || systemctl daemon-reload
flags=
if python3 -m pip uninstall --help | grep -q -- --break-system-packages; then
    flags=--break-system-packages
fi
# shellcheck disable=SC2086
python3 -m pip uninstall --quiet --yes --root-user-action=ignore $flags numad-py
if [ "${1:-}" = --purge ]; then
    rm -rf /etc/numad-py /var/lib/numad-py
fi
echo "numad-py is gone"
