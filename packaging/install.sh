#!/bin/sh
# Installs numad-py as a systemd service: the package, the unit, its user, the policy, the manual.
# usage: packaging/install.sh [WHEEL]      without a wheel it installs the checkout it stands in
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
source=${1:-$here}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "run it as root: sudo $0"
command -v python3 >/dev/null || fail "python3 is missing: apt-get install python3"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "Python 3.10 or newer is needed, this is $(python3 --version)"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing: apt-get install python3-pip"

missing=
for pair in psutil:psutil pyudev:pyudev structlog:structlog \
    prometheus_client:prometheus-client tomli:tomli; do
    python3 -c "import ${pair%%:*}" 2>/dev/null || missing="$missing python3-${pair##*:}"
done
[ -z "$missing" ] || fail "Python packages are missing: apt-get install$missing"
python3 - <<'EOF' || fail "Debian 12 and Ubuntu 24.04 are the first that have them"
import re
import sys
from importlib.metadata import version

# The floors of pyproject.toml.
floors = {
    "psutil": "5.9.4",
    "pyudev": "0.24.0",
    "structlog": "22.3.0",
    "prometheus-client": "0.16.0",
    "tomli": "2.0.1",
}


def numbers(text):
    return [int(number) for number in re.findall(r"\d+", text)[:3]]


old = [f"{n} {version(n)}" for n, floor in floors.items() if numbers(version(n)) < numbers(floor)]
if old:
    sys.exit(f"install.sh: too old: {', '.join(old)}; needed: {floors}")
EOF

# Debian's pip wants to be told that a system-wide install is meant.
flags=
if python3 -m pip install --help | grep -q -- --break-system-packages; then
    flags=--break-system-packages
fi
case $source in
*.whl) flags="$flags --no-index" ;;
*)
    # Without it pip fetches it.
    if python3 -c 'import hatchling' 2>/dev/null; then flags="$flags --no-build-isolation"; fi
    ;;
esac
# shellcheck disable=SC2086
python3 -m pip install --quiet --no-deps --force-reinstall --root-user-action=ignore $flags "$source"

install -D -m 0644 "$here/packaging/sysusers.d/numad-py.conf" /usr/lib/sysusers.d/numad-py.conf
systemd-sysusers /usr/lib/sysusers.d/numad-py.conf
install -D -m 0644 "$here/systemd/numad-py.service" /etc/systemd/system/numad-py.service
install -D -m 0644 "$here/packaging/man/numad-py.8" /usr/local/share/man/man8/numad-py.8
install -D -m 0644 "$here/packaging/man/numad-py.toml.5" /usr/local/share/man/man5/numad-py.toml.5
if [ -e /etc/numad-py/numad-py.toml ]; then
    echo "kept /etc/numad-py/numad-py.toml"
else
    install -D -m 0644 "$here/config/numad-py.toml" /etc/numad-py/numad-py.toml
    install -d -m 0755 /etc/numad-py/conf.d
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if systemctl is-active --quiet numad-py; then
        echo "an earlier version runs; take this one over with: systemctl restart numad-py"
    fi
fi

echo "installed $(numad-py --version); next:"
echo "  numad-py doctor                      what this machine gives, and what works against it"
echo "  numad-py plan                        what would be done now, and why"
echo "  systemctl enable --now numad-py      do it"
