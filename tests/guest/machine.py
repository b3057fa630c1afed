"""A booted guest: run commands in it, put files into it, and be sure that it ends."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests.guest import snapshot
from tests.guest.image import GuestError, Image, cache_folder, image, say
from tests.guest.topology import TOPOLOGIES

BOOT_LIMIT_S = 300
_KVM_LIMIT_S = 10
_EMULATED_CPU = "max,-erms,-fsrm"
"""Without fast rep movsb and stosb: processors have them in microcode, while the emulator goes
byte by byte. Kernels that see them clear pages by them, and Linux 6.12 copies a page that moves by
them (folio_mc_copy, mm/util.c): 2 MiB took 28 ms that take 2 ms by other instructions."""
_KERNEL_LINE = (
    "root=/dev/vda rw console=ttyS0 quiet mitigations=off nokaslr audit=0 "
    "systemd.show_status=false tsc=unstable fsck.mode=skip"
)


class Machine:
    """A guest for the time of a ``with`` block.

    The disk is an overlay that goes with the guest. A guest that has booted once is kept, and later
    ones wake from that. QEMU gets SIGKILL when this process dies, so
    that nothing is left behind however it ends.
    """

    def __init__(self, release: str, topology: str, *, quiet: bool = False) -> None:
        """Name a release and a topology."""
        self.release = release
        self.topology = TOPOLOGIES[topology]
        self._quiet = quiet
        self._scratch = Path(tempfile.mkdtemp(prefix="guest-"))
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._overlay = self._scratch / "root.qcow2"
        self._image: Image | None = None
        self._snapshot: Path | None = None
        self._restored = False
        self._tried_to_keep = False
        self._began = 0.0

    @property
    def name(self) -> str:
        """``release-topology``."""
        return f"{self.release}-{self.topology.name}"

    @property
    def console(self) -> Path:
        """What the guest printed on its serial console."""
        return self._scratch / "console.log"

    def __enter__(self) -> Machine:  # noqa: PYI034 - Self is newer than Python 3.10
        """Boot, and wait until commands run.

        Raises:
            GuestError: no guest can be had, or it did not come up; with the end of its console.
        """
        try:
            self.start()
            self.wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def start(self) -> None:
        """Begin to boot; several may boot at once.

        QEMU ends with the thread that calls this.
        """
        self._image = image(self.release)
        self._began = time.monotonic()
        machine = self._machine(self._image)
        self._snapshot = snapshot.path_of(self._image, self.topology.name, machine)
        self._restored = self._snapshot.exists()
        if self._restored:
            snapshot.copy(self._snapshot, self._overlay)
        else:
            snapshot.new_overlay(self._image, self._overlay)
        doing = "waking" if self._restored else "booting"
        self._say(f"{doing} {self.name} ({accelerator(self._image)})")
        load = ["-loadvm", snapshot.NAME] if self._restored else []
        with (self._scratch / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *machine, *self._of_this_run(), *load],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        """Wait until commands run.

        Raises:
            GuestError: it did not come up; with the end of its console.
        """
        assert self._process is not None
        while time.monotonic() - self._began < BOOT_LIMIT_S:
            if self._process.poll() is not None:
                msg = f"QEMU ended:\n{self._tail('qemu.log')}"
                raise GuestError(msg)
            with contextlib.suppress(subprocess.SubprocessError):
                # A guest that was kept wakes with the time at which it was.
                now = f"date --set=@{time.time():.0f}"
                if self.run(now, timeout=30, check=False).returncode == 0:
                    self._say(f"{self.name} is up after {time.monotonic() - self._began:.0f} s")
                    break
            time.sleep(1)
        else:
            msg = f"the guest was not up after {BOOT_LIMIT_S} s; its console ends:\n"
            raise GuestError(msg + self._tail("console.log"))
        if not self._restored and not self._tried_to_keep:
            self._keep()

    def _keep(self) -> None:
        """Keep it as booted for the next time, and go on from that."""
        assert self._process is not None
        assert self._snapshot is not None
        self._tried_to_keep = True
        self._say(f"keeping {self.name} as booted")
        self._leave()
        snapshot.keep(self._scratch / "monitor", self._process, self._overlay, self._snapshot)
        self._overlay.unlink()
        self.start()
        self.wait()

    def _leave(self) -> None:
        """End the connection."""
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            leave = [*self._ssh(), "-O", "exit", "guest"]
            subprocess.run(leave, capture_output=True, timeout=5, check=False)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it at once: its disk is thrown away."""
        if self._process is not None:
            self._leave()
            self._process.kill()
            self._process.wait(timeout=30)
        for path in self._scratch.iterdir():
            path.unlink()
        self._scratch.rmdir()

    # What tests call

    def run(
        self, command: str, *, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root; a failing one raises with its output unless told not to."""
        done = subprocess.run(
            [*self._ssh(), "guest", command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            msg = f"in the guest, {command!r} ended with {done.returncode}:\n"
            msg += f"{done.stdout}\n{done.stderr}"
            raise AssertionError(msg)
        return done

    def out(self, command: str, *, timeout: float = 120) -> str:
        """Return what a command prints."""
        return self.run(command, timeout=timeout).stdout

    def lines(self, command: str, *, timeout: float) -> Iterator[str]:
        """Yield what a command prints, line by line as it comes; it is ended at the time limit."""
        limited = f"timeout {timeout:.0f} {command}"
        with subprocess.Popen(
            [*self._ssh(), "guest", limited],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            yield from (line.rstrip("\n") for line in process.stdout)

    def put(self, local: Path, remote: str) -> None:
        """Copy a file or a folder into the guest, at that path."""
        folder = shlex.quote(str(Path(remote).parent))
        name = shlex.quote(remote)
        command = f"mkdir -p {folder} && cd {folder} && tar --warning=no-timestamp -xf - && "
        command += f"[ {shlex.quote(local.name)} = {shlex.quote(Path(remote).name)} ] || "
        command += f"mv {shlex.quote(local.name)} {name}"
        tar = ["tar", "-C", str(local.parent), "--exclude=__pycache__", "-cf", "-", local.name]
        with subprocess.Popen(tar, stdout=subprocess.PIPE) as source:
            subprocess.run(
                [*self._ssh(), "guest", command], stdin=source.stdout, check=True, timeout=120
            )

    # Booting

    def _machine(self, disk: Image) -> list[str]:
        """Return the command that makes the machine, the same in each run."""
        kvm = accelerator(disk) == "kvm"
        accel = ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi"]
        return [
            "qemu-system-x86_64",
            *accel,
            *([] if kvm else ["-cpu", _EMULATED_CPU]),
            *self.topology.qemu_arguments(),
            "-kernel",
            str(disk.kernel),
            "-initrd",
            str(disk.initrd),
            "-append",
            _KERNEL_LINE,
            "-device",
            "virtio-blk-pci,drive=root,bus=pcie.0",
            "-device",
            "virtio-net-pci,netdev=n0,mac=52:54:00:6e:75:01,bus=pcie.0",
            "-device",
            "virtio-rng-pci,bus=pcie.0",
            "-display",
            "none",
            "-no-reboot",
            "-nodefaults",
        ]

    def _of_this_run(self) -> list[str]:
        """Return what differs from run to run: paths and ports."""
        return [
            "-drive",
            f"file={self._overlay},format=qcow2,if=none,id=root,cache=unsafe",
            "-netdev",
            f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{self._port}-10.0.2.15:22",
            "-serial",
            f"file:{self.console}",
            "-monitor",
            f"unix:{self._scratch / 'monitor'},server=on,wait=off",
        ]

    def _tail(self, name: str) -> str:
        path = self._scratch / name
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def _ssh(self) -> list[str]:
        assert self._image is not None
        options = {
            "Port": str(self._port),
            "User": "root",
            "HostName": "127.0.0.1",
            "IdentityFile": str(self._image.key),
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "BatchMode": "yes",
            "ConnectTimeout": "20",
            "ControlMaster": "auto",
            "ControlPath": str(self._scratch / "c"),
            "ControlPersist": "60",
            "Compression": "no",
        }
        return ["ssh", "-F", "none", *(f"-o{key}={value}" for key, value in options.items())]

    def _say(self, text: str) -> None:
        if not self._quiet:
            say(text)


def accelerator(disk: Image) -> str:
    """Return ``kvm`` where it really works, else ``tcg``; tried once a boot of the host.

    /dev/kvm can be there and hang the guest, so it is tried with a kernel and a short limit.
    """
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = cache_folder() / f"accelerator-{boot_id}"
    if known.exists():
        return known.read_text()
    answer = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) and _kvm_works(disk) else "tcg"
    for old in cache_folder().glob("accelerator-*"):
        old.unlink()
    known.write_text(answer)
    return answer


def _kvm_works(disk: Image) -> bool:
    say(f"trying KVM for at most {_KVM_LIMIT_S} s")
    with tempfile.TemporaryDirectory() as scratch:
        console = Path(scratch) / "console"
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"),
                *("-accel", "kvm", "-cpu", "host", "-m", "512M"),
                *("-kernel", str(disk.kernel), "-append", "console=ttyS0 panic=-1"),
                *("-serial", f"file:{console}", "-display", "none", "-monitor", "none"),
                "-no-reboot",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(timeout=_KVM_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)
        # Without a root the kernel gets as far as its panic, if it runs at all.
        return console.exists() and "Kernel panic" in console.read_text(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
