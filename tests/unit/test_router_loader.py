"""Routers from outside the project: the examples run unmodified, mistakes are named."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import eth_abi
import pytest
from calls import make_call
from shapes import random_value

from blueprint.errors import ConfigError, RegistrationError
from blueprint.extract.abi import encode_value
from blueprint.extract.shape import Kind, Shape
from blueprint.extract.tlv import decode_payload, encode_payload
from blueprint.extract.tlv_schema import parse_schema
from blueprint.loader import load_router

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def clean_imports() -> Iterator[None]:
    """Give back the import path and the modules as they were."""
    path, modules = sys.path[:], set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.parametrize("kind", list(Kind))
async def test_router_loader_serves_a_job_for_every_kind_over_tlv(kind: Kind) -> None:
    """The example outside the project echoes random values of each kind under the schema that it declares."""
    router = load_router("all_kinds.router:router", folder=EXAMPLES)
    schemas = router.schemas()
    handler = router.bind(schemas)
    params, result = parse_schema(schemas[kind].params), parse_schema(schemas[kind].result)
    assert kind is Kind.STRUCT or [field.kind for field in params] == [kind]
    rng = random.Random(int(kind))
    for _ in range(5):
        values = tuple(random_value(rng, field) for field in params)
        output = await handler(make_call(kind, encode_payload(params, values)))
        expected = () if kind is Kind.VOID else values
        assert decode_payload(result, output) == (*expected, None)
    rejection = decode_payload(result, await handler(make_call(kind, bytes(17_000))))
    assert "(TLV, at byte" in str(rejection[-1])


@pytest.mark.parametrize("kind", list(Kind))
async def test_router_loader_serves_a_job_for_every_kind_over_abi(kind: Kind) -> None:
    """The same jobs echo the same bytes over the ABI, where the chain declares no schema."""
    router = load_router("all_kinds.router", folder=EXAMPLES)
    params = parse_schema(router.schemas()[kind].params)
    shape = Shape(kind=Kind.STRUCT, children=params) if kind is Kind.STRUCT else params[0]
    value = random_value(random.Random(int(kind)), shape)
    inputs = b"" if kind is Kind.VOID else encode_value(shape, value)
    assert await router.bind({})(make_call(kind, inputs)) == inputs


async def test_router_loader_runs_the_small_examples() -> None:
    """The job of the README and the echo job do what they say."""
    hello = load_router("hello_job:router", folder=EXAMPLES).bind({})
    output = await hello(make_call(0, eth_abi.encode(["(string,uint64)"], [("ab", 3)])))
    assert eth_abi.decode(["string"], output) == ("ababab",)
    assert b"at most 100" in await hello(make_call(0, eth_abi.encode(["(string,uint64)"], [("ab", 101)])))
    assert await load_router("echo_router", folder=EXAMPLES).bind({})(make_call(0, b"any")) == b"any"


def test_router_loader_appends_the_folder_so_that_it_shadows_nothing() -> None:
    """What is installed comes first, whatever lies in the folder."""
    before = [entry for entry in sys.path if entry != str(EXAMPLES)]
    sys.path[:] = before
    load_router("hello_job", folder=EXAMPLES)
    assert sys.path == [*before, str(EXAMPLES)]


@pytest.mark.parametrize(
    "reference", ["", ":router", "a b:router", "a.:router", "a:b:c", "../x:router", "a:1"]
)
def test_router_loader_refuses_what_is_no_reference(reference: str, tmp_path: Path) -> None:
    """A malformed reference is a usage error with an example."""
    with pytest.raises(ConfigError, match="expected package.module:variable"):
        load_router(reference, folder=tmp_path)


@pytest.mark.parametrize(
    ("source", "reference", "error", "problem"),
    [
        (None, "nowhere_at_all:router", ConfigError, "there is no module 'nowhere_at_all'"),
        ("import not_installed_at_all", "mine_a", ConfigError, "not_installed_at_all.*install what it needs"),
        ("x = (", "mine_b", ConfigError, "line 1"),
        ("x = 1", "mine_c", ConfigError, "the module has none"),
        (
            "from blueprint.router import Router\njobs = Router()",
            "mine_d:job",
            ConfigError,
            "mean mine_d:jobs",
        ),
        ("router = 3", "mine_e", ConfigError, "expected a Router in 'router', received a int"),
        (
            "from blueprint.router import Router\nrouter = Router()\n@router.job(0)\ndef f(): pass",
            "mine_f",
            RegistrationError,
            "async def",
        ),
    ],
)
def test_router_loader_names_what_is_wrong_with_a_module(
    source: str | None, reference: str, error: type[Exception], problem: str, tmp_path: Path
) -> None:
    """Each way in which a module cannot give a router has its own message."""
    if source is not None:
        (tmp_path / f"{reference.partition(':')[0]}.py").write_text(source)
    with pytest.raises(error, match=problem):
        load_router(reference, folder=tmp_path)


@pytest.mark.parametrize("name", ["jobs", "sandbox", "blueprint", "contracts"])
def test_router_loader_refuses_a_module_that_shadows_ours(name: str, tmp_path: Path) -> None:
    """A user's package named like one of ours would be half used: it is refused by name."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    with pytest.raises(RegistrationError, match=f"module '{name}'.*rename it"):
        load_router(f"{name}.mine:router", folder=tmp_path)
