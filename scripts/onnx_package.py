"""The official onnx package and ONNX Runtime in an environment of their own, for the scripts of reports, which `graphsmith
triage` runs with it, and for scripts/check-models, scripts/node-tests, scripts/schemas, scripts/known-bugs and
scripts/bisect-release. scripts/setup, or the first script that needs it, installs it into .native/venv (70 MB)."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import native

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / ".native"
VENV = NATIVE / "venv"
VERSION = "1.23.2"
REQUIREMENTS = [f"onnx=={VERSION}", "protobuf<8"]  # numpy: whichever this Python has wheels of
RUNTIME = native.requirement("onnxruntime")  # the release that is under test
SCRIPT = f"scripts/{Path(sys.argv[0]).name}"


class Problem(Exception):
    """One sentence: what is wrong and what to do."""


class Parser(argparse.ArgumentParser):
    """Says in one sentence what it cannot use."""

    def error(self, message):
        raise Problem(f"{message}: see --help")


def enter() -> None:
    """Restarts the script with the interpreter of the environment, which is made when it is missing."""
    if Path(sys.prefix) == VENV:
        return
    python = ready()
    os.execv(python, [str(python), str(Path(sys.argv[0]).resolve()), *sys.argv[1:]])


def ready() -> Path:
    """The interpreter of the environment, which is made when it is missing."""
    python = VENV / "bin" / "python"
    stamp = VENV / ".installed"
    wanted = "\n".join([*REQUIREMENTS, RUNTIME]) + "\n"
    if not (stamp.exists() and stamp.read_text() == wanted and python.exists()):
        install(stamp, wanted)
    return python


def install(stamp: Path, wanted: str) -> None:
    print(f"{SCRIPT}: installing {REQUIREMENTS[0]} and {RUNTIME} into {VENV} (70 MB)", file=sys.stderr)
    NATIVE.mkdir(exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=NATIVE))
    try:
        made = run([sys.executable, "-m", "venv", str(partial / "venv")])
        if made.returncode:
            raise Problem(f"{sys.executable} cannot make a virtual environment: install its venv module (Debian: apt-get install python3-venv)")
        python = str(partial / "venv" / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
        installed = run([*pip, *REQUIREMENTS])
        if installed.returncode:
            errors = [line for line in installed.stderr.splitlines() if line.startswith("ERROR")]
            raise Problem(
                f"{REQUIREMENTS[0]} could not be installed ({errors[-1] if errors else 'pip does not say why'}): "
                "check the network and `pip config list`, and run again"
            )
        if run([*pip, RUNTIME]).returncode:  # not every Python has a wheel
            print(f"{SCRIPT}: {RUNTIME} has no wheel for {sys.executable}: scripts of reports are not run", file=sys.stderr)
        (partial / "venv" / stamp.name).write_text(wanted)
        shutil.rmtree(VENV, ignore_errors=True)
        (partial / "venv").rename(VENV)  # its interpreter is a link, so only scripts like bin/pip break
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def run(command) -> subprocess.CompletedProcess:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")


def build_graphsmith() -> None:
    if subprocess.run([str(ROOT / "scripts" / "setup"), "--no-cargo-fuzz"], stdin=subprocess.DEVNULL).returncode:
        raise Problem("scripts/setup failed, for the reason above: correct it and run again")
    build = ["cargo", "build", "--quiet", "--bin", "graphsmith"]
    if subprocess.run(build, cwd=ROOT, stdin=subprocess.DEVNULL).returncode:
        raise Problem("graphsmith does not build, for the reason above: correct it and run again")


def built_graphsmith() -> list:
    """The program that build_graphsmith has built."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or "target")
    return [str(ROOT / target / "debug" / "graphsmith")]


def graphsmith(*arguments: str) -> list:
    """The command that runs graphsmith as it is built here."""
    return ["cargo", "run", "--quiet", "--bin", "graphsmith", "--", *arguments]


def start(main) -> None:
    """Runs `main` and ends the script with its exit status; 2 when nothing could be done."""
    if sys.version_info < (3, 10):
        sys.exit(f"{SCRIPT}: Python 3.10 or newer is needed, and {sys.executable} is {sys.version.split()[0]}")
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"{SCRIPT}: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{SCRIPT}: interrupted", file=sys.stderr)
        sys.exit(130)


def prepare() -> int:
    ready()
    return 0


if __name__ == "__main__":
    start(prepare)
