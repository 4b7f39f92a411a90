"""Build the wheel, install it away from the source tree, and use it there: what was packed must be enough."""

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
OURS = ("blueprint/", "jobs/", "sandbox/", "contracts/", "tee_job_node-")
USE = """
import contracts, blueprint, jobs, sandbox
assert "site-packages" in contracts.__file__, contracts.__file__
assert contracts.load("LocalTangle").bytecode
import blueprint.node, jobs.execute, sandbox.executor, sandbox.check
"""


def main() -> None:
    """Exit with an error if the built wheel cannot do what the source tree can."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
            cwd=PROJECT,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        (wheel,) = Path(folder).glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        strangers = [n for n in names if not n.startswith(OURS) or "node_modules" in n]
        assert not strangers, f"the wheel holds files that are not ours: {strangers[:5]}"
        # Its dependencies are this environment's; only the project itself comes from the wheel.
        env = Path(folder) / "env"
        venv.create(env, with_pip=False, symlinks=True)
        site = next((env / "lib").glob("python3*")) / "site-packages"
        ours = next(p for p in map(Path, sys.path) if p.name == "site-packages")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        (site / "zz_environment.pth").write_text(f"{ours}\n")
        for use in (["-c", USE], ["-m", "blueprint", "--help"]):
            subprocess.run([env / "bin/python", *use], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    print(f"{wheel.name}: {len(names)} files, installs and runs")


if __name__ == "__main__":
    main()
