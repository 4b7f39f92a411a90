"""Carries out a Dockerfile without Docker and without a registry: base images come from Debian's archive.

Covers what our Dockerfile uses: FROM (with AS), RUN, COPY (with --from), WORKDIR, ENV, USER, HEALTHCHECK,
ENTRYPOINT, CMD. Anything else is refused, so that the file cannot grow past what is proved. Run as root:

    python -m tests.support.imagefile WORKSPACE [STAGE=FOLDER...]

A stage that is given a folder is not carried out: its root is that folder.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.rootfs.apt import host_options, host_sources, sources_for_suite
from sandbox.rootfs.process import leashed

__all__ = ["Instruction", "Stage", "parse", "prove"]

KNOWN = {"FROM", "RUN", "COPY", "WORKDIR", "ENV", "USER", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
PROJECT = Path(__file__).resolve().parents[2]
STEP_TIMEOUT_S = 1200.0
CHROOT = shutil.which("chroot") or "/usr/sbin/chroot"
# How this machine reaches package indexes; the image itself has nothing of it.
CARRIED = (
    "PIP_INDEX_URL", "PIP_CERT", "PIP_DEFAULT_TIMEOUT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY",
)  # fmt: skip
# A step runs in name spaces of its own, with the machine's network, and leaves no mount and no process.
STEP = """\
set -e
root=$1 folder=$2 user=$3 command=$4
mount --rbind /dev "$root/dev"; mount -t proc proc "$root/proc"; mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/run/carried"
for file in $5; do cp "$file" "$root/run/carried/"; done
[ -e "$root/etc/resolv.conf" ] || : >"$root/etc/resolv.conf"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
exec "$6" ${user:+--userspec="$user"} "$root" /bin/sh -c 'cd "$1" && eval "$2"' sh "$folder" "$command"
"""


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word, its ``--`` options, and the rest."""

    word: str
    options: dict[str, str]
    rest: str


@dataclass
class Stage:
    """One stage: what it starts from, its instructions, and what they set."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)
    folder: str = "/"
    user: str = ""
    env: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def parse(text: str) -> list[Stage]:
    """Parse a Dockerfile into stages; raises ValueError for an instruction that is not covered."""
    stages: list[Stage] = []
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word not in KNOWN:
            raise ValueError(f"Dockerfile: {word} is not covered by the proof")
        options = {}
        while rest.lstrip().startswith("--"):
            option, _, rest = rest.lstrip().partition(" ")
            name, _, value = option[2:].partition("=")
            options[name] = value
        if word == "FROM":
            words = rest.split()
            stages.append(Stage(name=words[2] if len(words) > 2 else str(len(stages)), base=words[0]))
        else:
            stages[-1].instructions.append(Instruction(word, options, rest.strip()))
    return stages


def prove(text: str, workspace: Path, given: dict[str, Path]) -> tuple[Path, Stage]:
    """Carry out every stage and return the last one's root and settings."""
    done: dict[str, tuple[Path, Stage]] = {}
    for stage in parse(text):
        if stage.name in given:
            say(f"{stage.name}: given as {given[stage.name]}")
            done[stage.name] = given[stage.name], stage
            continue
        root = workspace / stage.name
        if stage.base in done:
            parent_root, parent = done[stage.base]
            subprocess.run(["cp", "-a", "--reflink=auto", str(parent_root), str(root)], check=True)
            stage.env, stage.folder, stage.user = dict(parent.env), parent.folder, parent.user
        else:
            make_base(stage.base, root, workspace)
        for instruction in stage.instructions:
            say(f"{stage.name}: {instruction.word} {instruction.rest[:100]}")
            carry_out(instruction, stage, root, {name: place for name, (place, _) in done.items()})
        done[stage.name] = root, stage
    return root, stage


def say(line: str) -> None:
    """Tell what is being done."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def make_base(image: str, root: Path, workspace: Path) -> None:
    """Make what stands for a Debian base image: the same suite's minimal system, from the host's mirror."""
    name, _, tag = image.partition(":")
    if name != "debian":
        raise ValueError(f"Dockerfile: the proof knows images of debian, received {image!r}")
    suite = tag.removesuffix("-slim")
    sources = workspace / "base.sources"
    sources.write_text(sources_for_suite(host_sources(), suite))
    options = [f"--aptopt={option}" for option in host_options()]
    argv = [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        *options,
        suite,
        str(root),
        str(sources),
    ]
    subprocess.run(leashed(argv), check=True, timeout=STEP_TIMEOUT_S)


def carry_out(instruction: Instruction, stage: Stage, root: Path, places: dict[str, Path]) -> None:
    """Carry out one instruction on a stage's root."""
    word, rest = instruction.word, instruction.rest
    if word == "RUN":
        run(root, stage, rest)
    elif word == "COPY":
        *sources, target = rest.split()
        origin = places[instruction.options["from"]] if "from" in instruction.options else PROJECT
        for source in sources:
            copy(origin / source.lstrip("/"), root, stage.folder, target, is_one=len(sources) == 1)
    elif word == "WORKDIR":
        stage.folder = rest
        (root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif word == "ENV":
        stage.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
    elif word == "USER":
        stage.user = rest
    elif word == "HEALTHCHECK":
        stage.health = json.loads(rest.removeprefix("CMD").strip())
    elif word == "ENTRYPOINT":
        stage.entrypoint = json.loads(rest)
    elif word == "CMD":
        stage.command = json.loads(rest)


def copy(source: Path, root: Path, folder: str, target: str, *, is_one: bool) -> None:
    """Copy as COPY does: a folder's content into the target, a file to it or into it."""
    place = root / str(Path(folder, target)).lstrip("/")
    if source.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", str(place)], check=True)
    else:
        into = place / source.name if target.endswith("/") or not is_one else place
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, into)


def run(root: Path, stage: Stage, command: str) -> str:
    """Run a shell command in a stage; raises CalledProcessError with what it printed."""
    carried = {name: os.environ[name] for name in CARRIED if name in os.environ}
    certificates = " ".join(sorted({value for value in carried.values() if value.startswith("/")}))
    # Not where the machine has them: a package of the image may own that file.
    for name, value in carried.items():
        carried[name] = f"/run/carried/{Path(value).name}" if value.startswith("/") else value
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    env |= {"DEBIAN_FRONTEND": "noninteractive"} | carried | stage.env
    user = f"{stage.user}:{stage.user}" if stage.user else ""
    argv = ["/bin/sh", "-c", STEP, "step", str(root), stage.folder, user, command, certificates, CHROOT]
    enter = [*leashed([]), *argv]
    done = subprocess.run(enter, env=env, capture_output=True, text=True, timeout=STEP_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(
            f"{command[:200]}: ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
        )
    return done.stdout


if __name__ == "__main__":
    stages = dict(word.split("=", 1) for word in sys.argv[2:])
    final_root, final = prove(
        (PROJECT / "Dockerfile").read_text(),
        Path(sys.argv[1]),
        {name: Path(path) for name, path in stages.items()},
    )
    say(run(final_root, final, shlex.join([*final.entrypoint, "--help"])))
