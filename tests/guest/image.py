"""Builds a guest's disk from Debian packages, once for each content."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

RELEASES = ("bookworm", "trixie")
DISK = "6G"
PACKAGES = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "openssh-server",
    "iproute2",
    "procps",
    "numactl",
    "numad",
    "kmod",
    "util-linux",
    "python3",
    "python3-pip",
    "python3-psutil",
    "python3-pyudev",
    "python3-structlog",
    "python3-prometheus-client",
    "python3-tomli",
    "prometheus",
    "linux-image-cloud-amd64",
]
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
MASKED = [
    # Debian enables it at install; it would work beside whatever is measured.
    "numad.service",
    "prometheus.service",
    "prometheus-node-exporter.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "dpkg-db-backup.timer",
    "man-db.timer",
    "fstrim.timer",
    "systemd-timesyncd.service",
    "getty@tty1.service",
    "systemd-networkd-wait-online.service",
    "systemd-firstboot.service",
    "systemd-pcrphase.service",
    "ldconfig.service",
    "ssh.socket",
]
NETWORK = """\
[Match]
# Not QEMU's first default, which another card of the guest would have too.
MACAddress=52:54:00:6e:75:01
[Network]
Address=10.0.2.15/24
LinkLocalAddressing=no
IPv6AcceptRA=no
"""
SETUP = """\
set -e
echo guest > "$1/etc/hostname"
printf '127.0.0.1 localhost guest\\n' > "$1/etc/hosts"
printf '/dev/vda / ext4 defaults 0 1\\n' > "$1/etc/fstab"
mkdir -p "$1/root/.ssh" "$1/etc/systemd/network"
cp "$KEY.pub" "$1/root/.ssh/authorized_keys"
chmod 700 "$1/root/.ssh"; chmod 600 "$1/root/.ssh/authorized_keys"
cp "$NETWORK" "$1/etc/systemd/network/10-guest.network"
printf 'UseDNS no\\nUsePAM no\\nMaxSessions 64\\nMaxStartups 64\\n' \
  > "$1/etc/ssh/sshd_config.d/guest.conf"
chroot "$1" systemctl enable systemd-networkd ssh >/dev/null 2>&1
for unit in $MASKED; do ln -sf /dev/null "$1/etc/systemd/system/$unit"; done
ln -sf /dev/null "$1/etc/systemd/network/99-default.link"
rm -rf "$1/var/cache/apt" "$1/usr/share/doc" "$1/usr/share/locale" "$1/var/lib/apt/lists"
"""


class GuestError(RuntimeError):
    """A guest cannot be had; the message says what is missing."""


@dataclass(frozen=True)
class Image:
    """A bootable disk, its kernel, and the key that opens it."""

    release: str
    folder: Path

    @property
    def disk(self) -> Path:
        """Raw ext4 file system, never written to: guests run on throw-away overlays."""
        return self.folder / "root.img"

    @property
    def kernel(self) -> Path:
        """The release's own cloud kernel."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Its initial RAM disk."""
        return self.folder / "initrd.img"

    @property
    def key(self) -> Path:
        """Private SSH key of root."""
        return self.folder / "key"


def cache_folder() -> Path:
    """Return where images are kept: $NUMAD_PY_CACHE, else under the user's cache."""
    if "NUMAD_PY_CACHE" in os.environ:
        return Path(os.environ["NUMAD_PY_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "numad-py"


def say(text: str) -> None:
    """Show progress; images and boots take minutes."""
    print(f"guest: {text}", file=sys.stderr, flush=True)


def check_tools() -> None:
    """Raise GuestError that names every package to install."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        msg = f"no guest can be had: apt-get install {' '.join(missing)}"
        raise GuestError(msg)


def image(release: str) -> Image:
    """Return the image of a release, built when its content has changed.

    Raises:
        GuestError: tools are missing, or packages cannot be fetched.
    """
    if release not in RELEASES:
        msg = f"{release!r} is not one of {', '.join(RELEASES)}"
        raise GuestError(msg)
    check_tools()
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = cache / f"{release}-{digest}"
        if not folder.exists():
            for old in cache.glob(f"{release}-*"):
                shutil.rmtree(old)
            if os.geteuid() == 0:
                _build(release, folder)
            else:
                _build_as_root(release, folder)
    return Image(release, folder)


def _build(release: str, folder: Path) -> None:
    began = time.monotonic()
    say(f"building the {release} image (about 2 minutes, once)")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="build-") as scratch:
        work = Path(scratch)
        out = work / "out"
        out.mkdir()
        key = out / "key"
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "guest", "-f", str(key)])
        (work / "network").write_text(NETWORK)
        (work / "setup.sh").write_text(SETUP)
        root = work / "root"
        environ = {
            **os.environ,
            "KEY": str(key),
            "NETWORK": str(work / "network"),
            "MASKED": " ".join(MASKED),
            "TMPDIR": str(work),
        }
        say(f"{release}: fetching and unpacking packages")
        _run(
            [
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                f"--include={','.join(PACKAGES)}",
                f'--customize-hook=sh {work / "setup.sh"} "$1"',
                release,
                str(root),
            ],
            environ,
        )
        for name in ("vmlinuz", "initrd.img"):
            newest = max((root / "boot").glob(f"{name}-*"))
            shutil.copy(newest, out / name)
        say(f"{release}: writing the disk")
        _run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(out / "root.img"), DISK])
        shutil.rmtree(root)
        out.rename(folder)
    say(f"{release}: image built in {time.monotonic() - began:.0f} s")


def _build_as_root(release: str, folder: Path) -> None:
    """Build by sudo: the files of a disk belong to root."""
    if shutil.which("sudo") is None:
        msg = f"building the {release} image needs root: run this as root, or install sudo"
        raise GuestError(msg)
    say(f"building the {release} image with sudo")
    root = Path(__file__).parents[2]
    code = "from pathlib import Path; from tests.guest.image import _build; import sys; "
    code += "_build(sys.argv[1], Path(sys.argv[2]))"
    for command in (
        ["sudo", "env", f"PYTHONPATH={root}", sys.executable, "-c", code, release, str(folder)],
        ["sudo", "chown", "-R", f"{os.getuid()}:{os.getgid()}", str(folder)],
    ):
        if subprocess.run(command, check=False, timeout=900).returncode:
            msg = f"{' '.join(command)} failed; see above"
            raise GuestError(msg)


def _run(command: list[str], environ: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, timeout=900
    )
    if done.returncode:
        msg = f"{command[0]} failed ({done.returncode}):\n{(done.stderr or done.stdout)[-3000:]}"
        raise GuestError(msg)
