"""The fuzz target as scripts/fuzz builds it, for scripts that run it themselves."""

import ctypes
import os
import signal
import subprocess
from pathlib import Path

import onnx_package
from onnx_package import ROOT, Problem

PROGRAM = ROOT / "target/fuzz-fast/x86_64-unknown-linux-gnu/release/graph_diff"
PARENT_DIES = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


def ready(given: Path | None) -> str:
    """The program: the given one, else the one that is built now."""
    if given is not None:
        if not given.is_file():
            raise Problem(f"{given} does not exist")
        return str(given.resolve())
    if subprocess.run([str(ROOT / "scripts/fuzz"), "--build"], stdin=subprocess.DEVNULL).returncode:
        raise Problem("the fuzz target does not build, for the reason above")
    return str(PROGRAM)


def environment(**more: str) -> dict:
    library = onnx_package.NATIVE / "onnxruntime" / "libonnxruntime.so"
    return {"ORT_DYLIB_PATH": str(library), **os.environ, **more}


def start(command: list, log, **more: str) -> subprocess.Popen:
    """A process that ends with this one and says what it has to say to `log`."""
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(**more), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        preexec_fn=die_with_parent, start_new_session=True,
    )  # fmt: skip


def stop(process: subprocess.Popen) -> None:
    """Ends it with those that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PARENT_DIES, signal.SIGKILL)
