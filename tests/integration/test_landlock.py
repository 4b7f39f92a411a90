"""Landlock, alone: no mount, mode or user number stands between the program and what it tries."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.kernel.landlock import ABI_WITH_SCOPES, landlock_abi

PROJECT = Path(__file__).resolve().parents[2]
PROGRAM = """
import errno, json, os, socket, sys
sys.path.insert(0, sys.argv[1])
from sandbox.kernel.landlock import confine_files, landlock_abi
from sandbox.kernel.syscalls import prctl
prctl(38, 1, what="no new privileges")
os.chdir(sys.argv[2])
is_confined = sys.argv[4] == "confined"
if is_confined:
    confine_files(landlock_abi(), folders=["inside"], files_below=["listed"])
said = {}
def attempt(name, function, *arguments):
    try:
        function(*arguments)
        said[name] = "done"
    except OSError as e:
        said[name] = errno.errorcode[e.errno]
attempt("read", lambda: open("listed/file").read())
attempt("execute", lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true"]) == 0 or 1 / 0)
attempt("make inside", lambda: os.makedirs("inside/a/b"))
attempt("write inside", lambda: open("inside/a/file", "w").write("x"))
attempt("move inside", os.rename, "inside/a/file", "inside/a/b/file")
attempt("write a listed file", lambda: os.close(os.open("listed/file", os.O_WRONLY)))
attempt("make beside a listed file", lambda: open("listed/other", "w"))
attempt("remove a listed file", os.unlink, "listed/file")
attempt("make outside", lambda: open("other", "w"))
attempt("make a folder outside", os.mkdir, "folder")
attempt("move out", os.rename, "inside/a/b/file", "moved")
attempt("make a device node", os.mknod, "inside/node", 0o20600, os.makedev(1, 3))
attempt("write to proc", lambda: os.close(os.open("/proc/self/comm", os.O_WRONLY)))
attempt("abstract socket", lambda: socket.socket(socket.AF_UNIX).connect("\\0" + sys.argv[3]))
attempt("signal the parent", os.kill, os.getppid(), 0)
print(json.dumps(said))
"""
REFUSED = {
    "make beside a listed file": "EACCES",
    "remove a listed file": "EACCES",
    "make outside": "EACCES",
    "make a folder outside": "EACCES",
    "move out": "EACCES",
    "make a device node": "EACCES",
    "write to proc": "EACCES",
}
REFUSED_WITH_SCOPES = {"abstract socket": "EPERM", "signal the parent": "EPERM"}


def attempts(folder: Path, *, confined: bool) -> dict[str, str]:
    """Run the program in a folder, with a socket of this process within its reach; say what came of each."""
    for name in ("inside", "listed"):
        (folder / name).mkdir()
    (folder / "listed/file").write_text("x")
    name = f"landlock-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        arguments = [str(PROJECT), str(folder), name, "confined" if confined else "free"]
        command = [sys.executable, "-c", PROGRAM, *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    said: dict[str, str] = json.loads(ran.stdout)
    return said


@pytest.mark.root
@pytest.mark.landlock
def test_confined_program_does_what_it_may_and_nothing_else(tmp_path: Path) -> None:
    """Reading, executing and writing below its folders work; all else fails that works without Landlock."""
    for name in ("free", "confined"):
        (tmp_path / name).mkdir()
    free = attempts(tmp_path / "free", confined=False)
    confined = attempts(tmp_path / "confined", confined=True)
    refused = REFUSED | (REFUSED_WITH_SCOPES if landlock_abi() >= ABI_WITH_SCOPES else {})
    assert set(free.values()) == {"done"}
    assert {name: said for name, said in confined.items() if said != "done"} == refused


@pytest.mark.root
@pytest.mark.landlock
def test_confinement_of_a_program_that_could_gain_privileges_is_an_error() -> None:
    """Without no_new_privs, and without rights, the kernel refuses, and so does the module."""
    code = (
        f"import os,sys; sys.path.insert(0, {str(PROJECT)!r})\n"
        "from sandbox.kernel.landlock import confine_files, landlock_abi\n"
        "os.setgroups([]); os.setresuid(4242, 4242, 4242)\n"
        "try: confine_files(landlock_abi(), folders=['/tmp'], files_below=[])\n"
        "except PermissionError: print('refused')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("refused\n", "")
