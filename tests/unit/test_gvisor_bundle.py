"""What gVisor is told of a stage: everything that shows and every bound, and nothing of the service."""

from dataclasses import replace

from sandbox.backends.backend import StageOrder
from sandbox.backends.gvisor_bundle import Runsc, specification, stage_argv
from sandbox.request import Limits

ORDER = StageOrder(
    name="run",
    argv=("/usr/bin/python3", "main.py"),
    env={"A": "b=c"},
    limits=Limits(processes=7, open_files=99, file_size_bytes=4096),
    tasks_max=70,
)
RUNSC = Runsc(path="/usr/bin/runsc", version="1", platform="ptrace", flags=("--network=none",))


def rlimits(order: StageOrder) -> dict[str, int]:
    """Return the bounds that the guest sets for the program, soft equal to hard."""
    process = specification(order, 700)["process"]
    assert all(each["soft"] == each["hard"] for each in process["rlimits"])  # type: ignore[index]
    return {each["type"]: each["hard"] for each in process["rlimits"]}  # type: ignore[index]


def test_bounds_of_a_stage_are_set_inside() -> None:
    """Descriptors, file size and tasks are bounded, and no core is written."""
    bounds = rlimits(ORDER)
    assert (bounds["RLIMIT_NOFILE"], bounds["RLIMIT_FSIZE"], bounds["RLIMIT_CORE"]) == (99, 4096, 0)
    assert bounds["RLIMIT_NPROC"] == 70


def test_processes_are_bounded_exactly_where_they_are_the_tasks() -> None:
    """Of a runtime without threads no more tasks are allowed than processes."""
    assert rlimits(replace(ORDER, counts_processes_exactly=True))["RLIMIT_NPROC"] == 7


def test_only_the_box_can_be_written_to() -> None:
    """Three folders of the writable file system are mounted for writing, nothing else of the machine is."""
    spec = specification(ORDER, 700)
    binds = {each["destination"] for each in spec["mounts"] if each["type"] == "bind"}  # type: ignore[attr-defined]
    assert binds == {"/work", "/tmp", "/dev/shm"}


def test_program_has_nothing_but_what_the_order_names() -> None:
    """The environment is the order's, no capability is given, and root of the machine is not mapped."""
    spec = specification(ORDER, 700)
    process, linux = spec["process"], spec["linux"]
    assert process["env"] == ["A=b=c"]  # type: ignore[index]
    assert not any(process["capabilities"].values())  # type: ignore[index]
    assert process["noNewPrivileges"] is True  # type: ignore[index]
    assert {each["hostID"] for each in linux["uidMappings"]} == {700, 701}  # type: ignore[index]


def test_stage_is_leashed_enters_and_joins_before_it_runs() -> None:
    """The command dies with the service, enters the laid out name space, joins its groups, then runs."""
    argv = stage_argv(RUNSC, "0-run", namespace="/proc/1/fd/9", join=["/groups/memory/tasks"])
    places = [argv.index(word) for word in ("--pdeathsig", "--mount=/proc/1/fd/9", "--pid", "join")]
    assert places == sorted(places)
    assert argv[argv.index("join") + 1 : argv.index("join") + 4] == ["1", "/groups/memory/tasks", RUNSC.path]
    assert argv[-1] == "0-run"
