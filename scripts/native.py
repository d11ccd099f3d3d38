#!/usr/bin/env python3
"""Puts the native libraries into .native: libtorch, libz3 and ONNX Runtime.

Called by scripts/setup; standard library only, Python 3.8 or newer. With --list it prints instead the
shared libraries that a program needs in a `lib` folder beside it when it is moved to another machine.

The libraries come out of Python wheels because those are prebuilt, pinned by hash, and within reach
wherever pip is; none of their Python code is run. A wheel is downloaded and taken apart in a folder of
its own and renamed into place when complete, so an interrupted run leaves nothing half-installed.
"""

import errno
import fcntl
import fnmatch
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Dict, NamedTuple, Optional, Tuple

NATIVE = Path(__file__).resolve().parent.parent / ".native"
STAMP = ".installed"  # in each library's folder: hash of the table's entry it was made from
BUILD_MB = 10_000  # what building the fuzz target and the tests takes, roughly
OLDEST_PIP = (20, 3)  # the first that knows the manylinux_x_y tags


class Wheel(NamedTuple):
    requirement: str
    platform: str  # the wheel's tag; older pips do not derive older tags from newer ones
    megabytes: int
    sha256: str
    members: Dict[str, str]  # glob in the wheel: folder for its files; "x/**" keeps the tree below x


class Library(NamedTuple):
    folder: str
    variable: str  # what a user sets to bring an own copy
    megabytes: int  # unpacked
    wheels: Tuple[Wheel, ...]
    written: Dict[str, str]  # file: content
    links: Dict[str, str]  # symbolic link: its target
    runtime: str  # glob of what programs load at run time


# Everything is for x86-64 Linux with glibc >= 2.28. Wheels for CPython 3.11 are asked for by name, so that
# any Python gets the same file.
LIBRARIES = (
    Library(
        folder="z3",
        variable="Z3_LIBRARY_PATH_OVERRIDE",
        megabytes=29,
        wheels=(
            Wheel(
                "z3-solver==5.4.1.0",  # Z3_SYS_Z3_VERSION in .cargo/config.toml is this version
                "manylinux_2_27_x86_64",
                39,
                "e680ce083683abca5d07c3e55c2f620ff9a29cb91c548eeeea27ae29e8060522",
                {"z3/lib/libz3.so.5.4": ""},
            ),
        ),
        written={},
        # -lz3 looks for this name; programs then ask for the soname, libz3.so.5.4.
        links={"libz3.so": "libz3.so.5.4"},
        runtime="libz3.so.5.4",
    ),
    Library(
        folder="onnxruntime",
        variable="ORT_DYLIB_PATH",
        megabytes=35,
        wheels=(
            Wheel(
                "onnxruntime==1.32.0",
                "manylinux_2_28_x86_64",
                28,
                "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
                {"onnxruntime/capi/libonnxruntime.so.1.32.0": ""},
            ),
        ),
        written={},
        links={"libonnxruntime.so": "libonnxruntime.so.1.32.0"},
        runtime="libonnxruntime.so",  # loaded by this name
    ),
    Library(
        folder="libtorch",
        variable="LIBTORCH",
        megabytes=490,
        wheels=(
            Wheel(
                "torch==2.13.0",  # the version that the tch crate asks for
                "manylinux_2_28_x86_64",
                527,
                "60fcdcb2f3876e21146cb4524ef06397d727ca9ad5f020818547e25075fe3cb7",
                {
                    "torch/lib/libtorch_cpu.so": "lib",
                    "torch/lib/libc10.so": "lib",
                    "torch/lib/libgomp.so.1": "lib",
                    "torch/include/**": "include",
                },
            ),
            # The wheel is the CUDA build: its libtorch_cpu.so loads these two, though it never calls them here.
            Wheel(
                "nvidia-cuda-runtime==13.0.96",
                "manylinux2014_x86_64",
                2,
                "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
                {"nvidia/cu13/lib/libcudart.so.13": "lib"},
            ),
            Wheel(
                "nvidia-cuda-cupti==13.0.85",
                "manylinux_2_25_x86_64",
                11,
                "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
                {"nvidia/cu13/lib/libcupti.so.13": "lib"},
            ),
        ),
        written={
            # For torch-sys's check of the version.
            "build-version": "2.13.0\n",
            # The wheel's libtorch.so pulls in libtorch_cuda.so and so all of CUDA: a linker script in its place.
            "lib/libtorch.so": "INPUT(libtorch_cpu.so libc10.so)\n",
        },
        links={},
        runtime="lib/lib*.so*",
    ),
)


class Problem(Exception):
    """One sentence: what is wrong and what to do."""


def say(text: str) -> None:
    print(f"scripts/setup: {text}", file=sys.stderr, flush=True)


def stamp(library: Library) -> str:
    return hashlib.sha256(repr(library).encode()).hexdigest() + "\n"


def installed(library: Library) -> bool:
    folder = NATIVE / library.folder
    try:
        if (folder / STAMP).read_text() != stamp(library):
            return False
    except OSError:
        return False
    expected = [*library.written, *library.links]
    for wheel in library.wheels:
        for member, target in wheel.members.items():
            expected.append(target if member.endswith("/**") else Path(target, Path(member).name))
    return all((folder / name).exists() for name in expected)


# ---- A user's own libraries ----


def requirement(folder: str) -> str:
    """What pip is asked for to fill a folder."""
    (found,) = (library for library in LIBRARIES if library.folder == folder)
    return found.wheels[0].requirement


def own_path(library: Library) -> Optional[Path]:
    """The user's own copy, or None if .native is to be used."""
    value = os.environ.get(library.variable)
    if value is None:
        return None
    if not value:  # cargo takes that for a setting, too
        raise Problem(f"{library.variable} is set but empty: unset it, or give it a value")
    path = Path(value)
    # Set by a cargo that called us: that is .cargo/config.toml's value, not the user's.
    inside = NATIVE / library.folder
    if path == inside or inside in path.parents:
        return None
    return path


def check_own(library: Library, path: Path) -> None:
    variable = library.variable
    if variable == "ORT_DYLIB_PATH" and len(path.parts) == 1:
        return  # a bare name: left to the system's library search
    if not path.is_absolute():
        raise Problem(f"{variable} is the relative path {path}: make it absolute, cargo builds crates in different folders")
    if not path.exists():
        raise Problem(f"{variable} points to {path}, which does not exist: correct it, or unset it to use the pinned release")
    if variable == "Z3_LIBRARY_PATH_OVERRIDE":
        if not any((path / name).exists() for name in ("libz3.so", "libz3.a")):
            raise Problem(f"{variable} must be a folder with libz3.so in it, and {path} has none")
    elif variable == "ORT_DYLIB_PATH":
        check_own_onnxruntime(path)
    else:
        check_own_libtorch(path)


def check_own_onnxruntime(path: Path) -> None:
    # Read rather than loaded: an instrumented build may need symbols that only the fuzz target has.
    content = path.read_bytes() if path.is_file() else b""
    if content[:5] != b"\x7fELF\x02" or content[18:20] != b"\x3e\0" or b"OrtGetApiBase" not in content:
        raise Problem(f"ORT_DYLIB_PATH must be an x86-64 libonnxruntime.so, and {path} is not one")
    version = re.search(rb"\0VERS_(\d+)\.(\d+)", content)
    if version and (int(version[1]), int(version[2])) < (1, 17):
        raise Problem(f"ORT_DYLIB_PATH is ONNX Runtime {version[0][6:].decode()}: at least 1.17 is needed")


def check_own_libtorch(path: Path) -> None:
    lib, header = path / "lib", path / "include/torch/torch.h"
    if not header.exists():
        header = path / "include/torch/csrc/api/include/torch/torch.h"
    if not header.exists() or not any((lib / name).exists() for name in ("libtorch.so", "libtorch.a")):
        raise Problem(f"LIBTORCH must be an unpacked libtorch with lib/libtorch.so and the headers, and {path} is not one")
    if "LIBTORCH_BYPASS_VERSION_CHECK" in os.environ:
        return  # torch-sys's own switch
    wanted = next(lib.written["build-version"] for lib in LIBRARIES if lib.variable == "LIBTORCH").strip()
    found = None
    if (path / "build-version").exists():
        found = (path / "build-version").read_text().strip()
    elif (path / "include/torch/headeronly/version.h").exists():
        match = re.search(r'TORCH_VERSION[\s\\]+"([^"]+)"', (path / "include/torch/headeronly/version.h").read_text())
        found = match and match[1]
    if not found or found.split("+")[0] != wanted:
        raise Problem(
            f"LIBTORCH ({path}) is version {found or 'unknown'} and {wanted} is needed: "
            "point it to that release, or unset it to use the pinned one"
        )


# ---- Installing ----


def check_machine() -> None:
    libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    version = re.match(r"glibc (\d+)\.(\d+)", libc or "")
    if not version or (int(version[1]), int(version[2])) < (2, 28):
        raise Problem(f"the prebuilt libraries need glibc 2.28 or newer, and this system has {libc or 'another C library'}")


def check_pip() -> None:
    result = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, text=True)
    version = re.match(r"pip (\d+)\.(\d+)", result.stdout)
    if result.returncode or not version:
        raise Problem(f"{sys.executable} has no pip: install it (Debian: apt-get install python3-pip)")
    if (int(version[1]), int(version[2])) < OLDEST_PIP:
        raise Problem(f"{result.stdout.split(' from')[0]} is too old: upgrade it ({sys.executable} -m pip install --upgrade pip)")


def check_space(missing) -> None:
    # pip holds a wheel twice for a moment, and each is deleted once unpacked.
    needed = sum(library.megabytes for library in missing)
    needed += 2 * max(wheel.megabytes for library in missing for wheel in library.wheels)
    free = shutil.disk_usage(NATIVE).free // 1_000_000
    if free < needed:
        raise Problem(
            f"{NATIVE} needs {needed} MB for the native libraries and its disk has {free} MB free: "
            "free some, or make .native a symbolic link to a folder on another disk"
        )
    if free - needed < BUILD_MB:
        say(f"warning: {free} MB are free here; the libraries and the builds take about {needed + BUILD_MB} MB")


def download(wheel: Wheel, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    terminal = sys.stderr.isatty()
    command = [sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version=3.11", "--implementation=cp", "--abi=cp311", f"--platform={wheel.platform}"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--retries=2"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    # pip unpacks in TMPDIR, and /tmp may be small; the two others are a user's settings for other purposes.
    environment = dict(os.environ, TMPDIR=str(folder), PIP_REQUIRE_VIRTUALENV="0", PIP_CONSTRAINT="")
    say(f"downloading {wheel.requirement} ({wheel.megabytes} MB)")
    result = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if terminal else subprocess.DEVNULL,  # the progress bar
        stderr=subprocess.PIPE,
        universal_newlines=True,
        errors="replace",
    )
    wheels = list(folder.glob("*.whl"))
    if result.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    raise Problem(f"{wheel.requirement} could not be installed: {reason(result.stderr)}")


def reason(output: str) -> str:
    """pip's many lines in one sentence."""
    if "DO NOT MATCH THE HASHES" in output:
        return "the download is not the pinned file (wrong SHA-256): run again, and if it stays so, ask whoever runs your mirror or proxy"
    if "No space left" in output:
        return "the disk is full: free some space and run again"
    if re.search(r"after connection broken|Max retries|ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|IncompleteRead", output):
        return "pip cannot reach its package index: check the network (or the proxy and index in `pip config list`) and run again"
    if "No matching distribution" in output:
        return "pip's package index does not have it: check the index in `pip config list`"
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    return "pip says: " + (errors[-1].strip() if errors else "nothing")


def unpack(wheel: Wheel, archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        names = [name for name in content.namelist() if not name.endswith("/")]
        for member, target in wheel.members.items():
            matching = [name for name in names if fnmatch.fnmatchcase(name, member)]
            if not matching:
                raise Problem(f"{archive.name} has no {member}: the table in scripts/native.py does not fit this release")
            for name in matching:
                kept = name[len(member) - 2 :] if member.endswith("/**") else Path(name).name
                path = folder / target / kept
                path.parent.mkdir(parents=True, exist_ok=True)
                with content.open(name) as source, path.open("wb") as destination:
                    shutil.copyfileobj(source, destination, 1 << 20)


def install(library: Library) -> None:
    started = time.monotonic()
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=NATIVE))
    try:
        new = partial / "new"
        new.mkdir()
        for wheel in library.wheels:
            work = partial / "wheel"
            work.mkdir()
            unpack(wheel, download(wheel, work), new)
            shutil.rmtree(work)
        for name, content in library.written.items():
            (new / name).write_text(content)
        for name, target in library.links.items():
            (new / name).symlink_to(target)
        (new / STAMP).write_text(stamp(library))
        final = NATIVE / library.folder
        if final.exists() or final.is_symlink():
            final.rename(partial / "old")
        new.rename(final)
        say(f"{final.relative_to(NATIVE.parent)} is ready ({time.monotonic() - started:.0f} s)")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main() -> None:
    if sys.argv[1:] == ["--list"]:
        for library in LIBRARIES:
            for path in sorted((NATIVE / library.folder).glob(library.runtime)):
                if path.name != "libtorch.so":  # the linker script
                    print(path)
        return

    wanted = []
    for library in LIBRARIES:
        path = own_path(library)
        if path is None:
            wanted.append(library)
        else:
            check_own(library, path)
    if all(installed(library) for library in wanted):
        return

    check_machine()
    NATIVE.mkdir(exist_ok=True)
    with open(NATIVE / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another scripts/setup to finish")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left_over in NATIVE.glob(".partial-*"):  # of a run that was killed: we hold the lock
            shutil.rmtree(left_over, ignore_errors=True)
        missing = [library for library in wanted if not installed(library)]
        if missing:
            check_pip()
            check_space(missing)
        for library in missing:
            install(library)


if __name__ == "__main__":
    if sys.version_info < (3, 8):
        sys.exit(f"scripts/setup: Python 3.8 or newer is needed, and {sys.executable} is {sys.version.split()[0]}")
    for number in (signal.SIGTERM, signal.SIGHUP):  # cleans up as after Ctrl-C
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        main()
    except Problem as problem:
        sys.exit(f"scripts/setup: {problem}")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            sys.exit(f"scripts/setup: the disk of {NATIVE} is full: free some space and run again")
        sys.exit(f"scripts/setup: cannot write the native libraries: {error}")
    except KeyboardInterrupt:
        say("interrupted; run it again to go on")
        sys.exit(130)
