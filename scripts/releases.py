"""Released versions of runtimes in .native/releases, for scripts/known-bugs and scripts/bisect-release: fetched with pip,
and rten built by cargo."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Callable, NamedTuple

import onnx_package
from onnx_package import NATIVE, Problem

RELEASES = NATIVE / "releases"
SCRIPTS = Path(__file__).resolve().parent
NUMPY = "1.26.4"  # wheels made for NumPy 1 do not load with a newer one
OLDEST = {"rten": (0, 23)}  # that reads ONNX itself
LONGEST = 120  # seconds that a release may take for a model
REFUSED, CRASHED = 3, 4  # of run_release.py


class NoWheel(Exception):
    """A release has none for this Python."""


class Unusable(Problem):
    """A release that does not load or cannot be built."""


class Answer(NamedTuple):
    """What a release makes of a model."""

    verdict: str  # `answered`, `refused`, `crashed` or `timed-out`
    words: str


def listed(runtime: str) -> list:
    """All final releases that this Python can have, the oldest first."""
    found = crates(runtime) if runtime == "rten" else wheels(runtime)
    final = [release for release in found if re.fullmatch(r"\d+(\.\d+)*", release)]
    parts = lambda release: tuple(map(int, release.split(".")))
    return sorted((release for release in final if parts(release) >= OLDEST.get(runtime, ())), key=parts)


def wheels(runtime: str) -> list:
    command = [sys.executable, "-m", "pip", "index", "versions", "--disable-pip-version-check", "--only-binary=:all:", runtime]
    done = onnx_package.run(command)
    found = re.search(r"^Available versions: (.*)$", done.stdout, re.MULTILINE)
    if found is None:
        raise Problem(f"the releases of {runtime} could not be listed ({error(done, 'pip')}): check the network and `pip config list`")
    return found[1].split(", ")


def crates(name: str) -> list:
    """cargo tells only the newest release that fulfils a requirement: each is asked for by the one that came after it."""
    print(f"{onnx_package.SCRIPT}: listing the releases of {name}", file=sys.stderr)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder)
        (package / "src").mkdir()
        (package / "src" / "lib.rs").touch()
        while True:
            older = f"<{found[-1]}" if found else "*"
            manifest = f'[package]\nname = "list"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n{name} = "{older}"\n[workspace]\n'
            (package / "Cargo.toml").write_text(manifest)
            (package / "Cargo.lock").unlink(missing_ok=True)
            done = subprocess.run(
                ["cargo", "generate-lockfile", "--quiet"], cwd=package, stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
            if done.returncode:
                # There is none that is older.
                if found and "candidate versions found which didn't match" in done.stderr:
                    return found
                raise Problem(f"the releases of {name} could not be listed ({error(done, 'cargo')}): check the network and run again")
            found.append(re.search(rf'name = "{name}"\nversion = "([^"]+)"', (package / "Cargo.lock").read_text())[1])


def error(done: subprocess.CompletedProcess, client: str) -> str:
    errors = [line for line in done.stderr.splitlines() if line.lower().startswith("error")]
    return errors[-1] if errors else f"{client} does not say why"


def in_process(runtime: str, release: str) -> bool:
    """Whether graphsmith itself can load the release: the wheels have a shared library of their own from 1.19 on."""
    return runtime == "onnxruntime" and tuple(map(int, release.split("."))) >= (1, 19)


def library(release: str) -> Path:
    """The shared library of a release of ONNX Runtime."""

    def make(folder: Path) -> None:
        # The library inside is the same in the wheels for every Python.
        pip("download", f"onnxruntime=={release}", "--python-version=3.11", f"--dest={folder}")
        (archive,) = folder.glob("*.whl")
        with zipfile.ZipFile(archive) as wheel:
            member = next(name for name in wheel.namelist() if f"libonnxruntime.so.{release}" in name)
            (folder / "libonnxruntime.so").write_bytes(wheel.read(member))
        archive.unlink()

    return kept("onnxruntime", release, make) / "libonnxruntime.so"


def ask(runtime: str, release: str, model: Path, inputs: Path, outputs: Path, names, options=()) -> Answer:
    """Has a release run a model in a process of its own and write its outputs; the options are run_release.py's."""
    environment = dict(os.environ, RUST_BACKTRACE="0", **place(runtime, release))
    files = map(str, (model, inputs, outputs))
    command = [sys.executable, str(SCRIPTS / "run_release.py"), *options, runtime, *files, *names]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return Answer("timed-out", f"no answer in {LONGEST} s")
    lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
    if done.returncode == 0:
        return Answer("answered", "")
    if done.returncode == REFUSED:
        return Answer("refused", lines[0])
    if done.returncode == CRASHED or done.returncode < 0:
        return Answer("crashed", lines[0] if done.returncode == CRASHED else f"signal {-done.returncode}")
    folder = RELEASES / f"{runtime}-{release}"
    raise Unusable(f"{runtime} {release} cannot be run ({lines[-1]}): delete {folder}, which may not be whole, and run again")


def place(runtime: str, release: str) -> dict:
    """The environment in which run_release.py finds the release, which is fetched when it is missing."""
    if runtime == "rten":
        # Another one where the program differs.
        edition = hashlib.sha256((SCRIPTS / "rten_release.rs").read_bytes()).hexdigest()[:6]
        folder = kept(runtime, f"{release}-{edition}", lambda folder: build_rten(release, folder))
        return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    folders = [kept(runtime, release, lambda folder: pip("install", f"{runtime}=={release}", f"--target={folder}"))]
    if runtime != "tract":
        folders.append(kept("numpy", NUMPY, lambda folder: pip("install", f"numpy=={NUMPY}", f"--target={folder}")))
    return {"PYTHONPATH": os.pathsep.join(map(str, folders))}


def kept(runtime: str, release: str, make: Callable[[Path], None]) -> Path:
    """The folder of a release; if it is missing, `make` fills a temporary one that then gets the name."""
    path = RELEASES / f"{runtime}-{release}"
    if path.exists():
        return path
    doing = "building" if runtime == "rten" else "fetching"
    print(f"{onnx_package.SCRIPT}: {doing} {runtime} {release}", file=sys.stderr)
    RELEASES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=RELEASES) as folder:
        made = Path(folder) / "made"
        made.mkdir()
        make(made)
        if not path.exists():  # another script may have been quicker
            made.rename(path)
    return path


def pip(action: str, requirement: str, *more: str) -> None:
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    done = onnx_package.run([sys.executable, "-m", "pip", action, *options, *more, requirement])
    if done.returncode == 0:
        return
    # pip lists the releases that would do; where it reaches nothing it has none.
    others = re.search(r"\(from versions: (.*)\)", done.stderr)
    if others and others[1] != "none":
        raise NoWheel(f"no wheel of {requirement} for Python {sys.version_info.major}.{sys.version_info.minor}")
    raise Problem(f"{requirement} could not be fetched ({error(done, 'pip')}): check the network and `pip config list`, and run again")


def build_rten(release: str, folder: Path) -> None:
    source = folder.parent / "source"
    (source / "src").mkdir(parents=True)
    shutil.copy(SCRIPTS / "rten_release.rs", source / "src" / "main.rs")
    package = '[package]\nname = "rten_release"\nversion = "0.0.0"\nedition = "2024"\n'
    dependencies = f'[dependencies]\nrten = "={release}"\nrten-tensor = "={release}"\n'
    (source / "Cargo.toml").write_text(f"{package}\n{dependencies}\n[workspace]\n")  # a workspace of its own
    # The crates that releases have in common are built once.
    command = ["cargo", "build", "--release", "--quiet", "--target-dir", str(RELEASES / ".rten-target")]
    with open(RELEASES / ".rten-lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, cwd=source, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
            why = errors[0] if errors else "cargo does not say why"
            raise Unusable(f"rten {release} does not build ({why})")
        shutil.copy(RELEASES / ".rten-target" / "release" / "rten_release", folder / "rten_release")
