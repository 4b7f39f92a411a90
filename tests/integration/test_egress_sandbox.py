"""Egress policies in real sandboxes, on every back end: what a program reaches with one, and without."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from sandbox.backends.backend import Backend, StageOrder
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.backends.slot import SlotBackend
from sandbox.bounds import StageBounds
from sandbox.egress.mirror import Mirror
from sandbox.egress.policy import EgressPolicy
from sandbox.egress.proxy import EgressProxy
from sandbox.egress.registry import Registry, RegistryKind
from sandbox.errors import RequestError
from sandbox.executor import CodeExecutor
from sandbox.languages import LANGUAGES
from sandbox.request import ExecutionRequest, SourceFile
from sandbox.result import ExecutionResult, ExecutionStatus
from sandbox.rootfs import find_tree
from sandbox.tree import LanguageTree
from tests.conftest import state_dir
from tests.support.everyone import sandbox_for_everyone
from tests.support.raw_server import RawServer, answer
from tests.support.sandboxes import SMALL, host_python, python_request

NOBODY = 65534
FETCH = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:%d/x", timeout=5).read().decode())
"""


@pytest.fixture(
    params=[
        pytest.param(SlotBackend, marks=pytest.mark.root, id="slot"),
        pytest.param(BubblewrapBackend, marks=pytest.mark.bubblewrap, id="bubblewrap"),
    ]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    made: Backend = request.param()
    return made


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def an_executor(
    backend: Backend, policies: Mapping[str, tuple[str, ...]], tree: LanguageTree | None = None
) -> AsyncIterator[CodeExecutor]:
    """Yield an executor whose operator allows these policies."""
    networks = {
        name: partial(EgressProxy, EgressPolicy(name=name, allow=allow)) for name, allow in policies.items()
    }
    limits = (
        SMALL if tree is None else replace(SMALL, memory_bytes=400 << 20, disk_bytes=100 << 20, inodes=5000)
    )
    bounds = StageBounds(run=limits)
    executor = CodeExecutor([tree or host_python()], backend, bounds=bounds, networks=networks)
    try:
        yield executor
    finally:
        await executor.aclose()


async def run(
    backend: Backend, policies: Mapping[str, tuple[str, ...]], code: str, network: str
) -> ExecutionResult:
    async with an_executor(backend, policies) as executor:
        return await executor.execute(replace(python_request(code), network=network))


async def test_program_reaches_what_its_policy_names(backend: Backend) -> None:
    """A program fetches from the server that the policy names; the result says by which policy, and what."""
    descriptors = open_descriptors()
    async with RawServer(lambda _: answer(b"hello")) as server:
        policies = {"api": (f"127.0.0.1:{server.port}",)}
        result = await run(backend, policies, FETCH % server.port, "api")
    assert (result.status, result.stdout.data) == (ExecutionStatus.SUCCESS, b"hello\n")
    assert "network_policy:api" in result.guarantees.enforced
    assert "network_none" not in result.guarantees.enforced
    (contact,) = result.contacts
    assert (contact.host, contact.port, contact.connections) == ("127.0.0.1", server.port, 1)
    assert contact.received_bytes > len("hello")
    assert open_descriptors() == descriptors


async def test_without_a_policy_nothing_is_reached(backend: Backend) -> None:
    """A node that has policies gives none to a request that names none."""
    async with RawServer(lambda _: answer(b"hello")) as server:
        policies = {"api": (f"127.0.0.1:{server.port}",)}
        code = "import socket\ntry: socket.socket()\nexcept OSError as e: print(e.errno)"
        result = await run(backend, policies, code, "")
        assert result.stdout.data == b"97\n"
        failed = await run(type(backend)(), policies, FETCH % server.port, "")
    assert failed.status is ExecutionStatus.NONZERO_EXIT
    assert "network_none" in result.guarantees.enforced
    assert result.contacts == ()
    assert server.heads == []


async def test_what_the_policy_does_not_name_stays_shut(backend: Backend) -> None:
    """Another service of this host is reached neither through the proxy nor beside it; the result tells."""
    async with RawServer(lambda _: answer(b"secret")) as server, RawServer(lambda _: answer(b"x")) as named:
        code = (
            "import socket, urllib.request, urllib.error\n"
            f"for url in ('http://127.0.0.1:{server.port}/', 'http://localhost:{server.port}/',"
            " 'http://169.254.169.254/latest/meta-data/'):\n"
            "  try: urllib.request.urlopen(url, timeout=5); print('reached')\n"
            "  except urllib.error.HTTPError as e: print(e.code)\n"
            f"for to in (('127.0.0.1', {server.port}), ('127.0.0.1', {named.port}), ('192.0.2.1', 80)):\n"
            "  try: socket.create_connection(to, 2); print('reached')\n"
            "  except OSError as e: print(e.strerror)\n"
            "try: socket.getaddrinfo('example.org', 80); print('resolved')\n"
            "except OSError: print('no names')\n"
        )
        result = await run(backend, {"api": (f"127.0.0.1:{named.port}",)}, code, "api")
    assert result.stdout.data.decode().splitlines() == [
        "403", "403", "403", "Connection refused", "Connection refused", "Network is unreachable", "no names",
    ]  # fmt: skip
    assert server.heads == named.heads == []
    assert [(each.host, each.refused) for each in result.contacts] == [
        ("127.0.0.1", 1), ("localhost", 1), ("169.254.169.254", 1),
    ]  # fmt: skip


async def test_a_policy_opens_no_other_kind_of_socket(backend: Backend) -> None:
    """Datagrams, raw packets, netlink, VSOCK and IPv6 lead nowhere with a policy either."""
    code = (
        "import socket\n"
        "kinds = (2, 2, 0), (2, 3, 1), (10, 2, 0), (10, 3, 58), (16, 3, 0), (17, 3, 0), (40, 1, 0)\n"
        "for f, t, p in kinds:\n"
        "  try: socket.socket(f, t, p); print('ok')\n"
        "  except OSError as e: print(e.errno)\n"
        "try: socket.create_connection(('2001:db8::1', 80), 2); print('reached')\n"
        "except OSError as e: print(e.errno in (99, 101))\n"
    )
    result = await run(backend, {"api": ("127.0.0.1:9",)}, code, "api")
    assert result.stdout.data.split() == [b"97"] * 7 + [b"True"]


async def test_listening_inside_is_nobody_elses_business(backend: Backend) -> None:
    """A program may listen on its own loopback: it reaches itself, and this host does not reach it."""
    code = (
        "import socket, sys, time\n"
        "s = socket.create_server(('127.0.0.1', 18777)); c = socket.create_connection(('127.0.0.1', 18777))\n"
        "a, _ = s.accept(); a.sendall(b'self'); print(c.recv(9).decode(), flush=True); time.sleep(1)\n"
    )
    async with an_executor(backend, {"api": ("127.0.0.1:9",)}) as executor:
        running = asyncio.create_task(executor.execute(replace(python_request(code), network="api")))
        reached = False
        while not running.done():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", 18777)
                reached = True
                writer.close()
            except OSError:
                await asyncio.sleep(0.05)
    assert (await running).stdout.data == b"self\n"
    assert not reached


async def test_gateways_port_cannot_be_taken_over(backend: Backend) -> None:
    """The port is ours before the program starts: it can neither bind it nor accept on it."""
    code = (
        "import socket\n"
        "for o in (0, socket.SO_REUSEADDR, socket.SO_REUSEPORT):\n"
        "  s = socket.socket()\n"
        "  if o: s.setsockopt(socket.SOL_SOCKET, o, 1)\n"
        "  try: s.bind(('127.0.0.1', 3128)); s.listen(); print('taken')\n"
        "  except OSError as e: print(e.errno)\n"
    )
    result = await run(backend, {"api": ("127.0.0.1:9",)}, code, "api")
    assert result.stdout.data.split() == [b"98"] * 3


async def test_installation_reaches_its_registry_only(backend: Backend) -> None:
    """A stage with the mirror as its gateway gets a package, and nothing of another registry or server."""
    code = (
        "import urllib.request, urllib.error\n"
        "for path in ('pypi/simple/six/', 'npm/x'):\n"
        "  try: print(urllib.request.urlopen('http://127.0.0.1:8081/' + path).read().decode())\n"
        "  except urllib.error.HTTPError as e: print(e.code)\n"
    )
    page = answer(b'<a href="/six.whl">', Content_Type="text/html")
    async with RawServer(lambda _: page) as server:
        registries = [
            Registry(name="pypi", kind=RegistryKind.PYPI, base_url=f"{server.url}/simple", download_hosts=()),
            Registry(name="npm", kind=RegistryKind.NPM, base_url=server.url),
        ]
        async with Mirror(registries) as mirror:
            session = await mirror.session(RegistryKind.PYPI)
            order = StageOrder(
                name="install",
                argv=("/usr/bin/python3", "-c", code),
                env={},
                limits=SMALL,
                tasks_max=10,
                gateway=session,
            )
            sandbox = await backend.open(host_python(), SMALL, "install")
            try:
                outcome = await sandbox.run(order)
            finally:
                await sandbox.destroy()
                await backend.aclose()
    assert outcome.stdout.data.decode().splitlines() == ['<a href="/pypi/six.whl">', "404"]
    assert "network_policy:registries" in outcome.guarantees.enforced
    assert [each.path for each in session.fetched] == ["/pypi/simple/six/"]


@pytest.mark.root
async def test_unknown_policy_is_refused_by_name() -> None:
    """A policy that the operator does not have is a malformed request that lists those there are."""
    async with an_executor(SlotBackend(), {"api": ("127.0.0.1:9",), "packages": ()}) as executor:
        with pytest.raises(
            RequestError, match=r"network: expected one of api, packages, received 'apy'.*'api'"
        ):
            await executor.execute(replace(python_request("pass"), network="apy"))
    async with an_executor(SlotBackend(), {}) as executor:
        with pytest.raises(RequestError, match="network: this node allows no egress policy"):
            await executor.execute(replace(python_request("pass"), network="api"))


CLIENTS = {
    "javascript": "fetch('http://one.test:%d/x').then(r => r.text()).then(t => console.log(t))",
    "java": """
        public class Main { public static void main(String[] a) throws Exception {
            try (var in = new java.net.URL("http://one.test:%d/x").openStream()) {
                System.out.println(new String(in.readAllBytes())); } } }""",
    "go": """package main
        import ("fmt"; "io"; "net/http")
        func main() { r, e := http.Get("http://one.test:%d/x"); if e != nil { panic(e) }
            b, _ := io.ReadAll(r.Body); fmt.Println(string(b)) }""",
    "python": "import urllib.request as u; print(u.urlopen('http://one.test:%d/x').read().decode())",
    "php": "<?php $c = stream_context_create(['http' => ['proxy' => str_replace('http', 'tcp', "
    "getenv('http_proxy')), 'request_fulluri' => true]]);"
    "echo file_get_contents('http://one.test:%d/x', false, $c), PHP_EOL;",
}


@pytest.mark.root
@pytest.mark.tree
@pytest.mark.slow
@pytest.mark.parametrize("language", CLIENTS)
async def test_standard_clients_find_the_proxy(language: str) -> None:
    """The languages' own HTTP clients go through the proxy by what their environment tells them."""
    async with RawServer(lambda _: answer(b"hello")) as server:

        async def local(_destination: object) -> list[str]:
            return ["127.0.0.1"]

        allow = (f"one.test:{server.port}", f"127.0.0.1:{server.port}")
        policy = EgressPolicy(name="api", allow=allow)
        tree = find_tree(state_dir())
        assert tree is not None
        executor = CodeExecutor([tree], SlotBackend(), networks={"api": partial(EgressProxy, policy, local)})
        file = SourceFile(
            path=LANGUAGES[language].default_file, content=(CLIENTS[language] % server.port).encode()
        )
        try:
            result = await executor.execute(ExecutionRequest(language=language, files=[file], network="api"))
        finally:
            await executor.aclose()
    assert (result.stdout.data, result.status) == (b"hello\n", ExecutionStatus.SUCCESS), result.stderr.data
    assert "network_policy:api" in result.guarantees.enforced


AS_NOBODY = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[1])
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.executor import CodeExecutor
from sandbox.request import ExecutionRequest, SourceFile
from sandbox.rootfs import host_tree
class Echo:
    name, port, contacts = "echo", 3128, ()
    def environment(self): return {}
    async def serve(self, listener):
        loop = asyncio.get_running_loop()
        while True:
            peer, _ = await loop.sock_accept(listener)
            with peer: await loop.sock_sendall(peer, b"hello from " + str(os.getuid()).encode())
source = b"import socket; s = socket.create_connection(('127.0.0.1', 3128)); print(s.recv(99).decode())"
async def main():
    executor = CodeExecutor([host_tree()], BubblewrapBackend(), networks={"echo": Echo})
    file = SourceFile(path="main.py", content=source)
    result = await executor.execute(ExecutionRequest(language="python", files=[file], network="echo"))
    await executor.aclose()
    print(result.stdout.data.decode().strip(), "network_policy:echo" in result.guarantees.enforced)
asyncio.run(main())
"""


@pytest.mark.root
@pytest.mark.bubblewrap
def test_gateway_needs_no_right() -> None:
    """A user without any right gives a program a way out, by nothing but name spaces of his own."""
    with sandbox_for_everyone() as home:
        become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        done = subprocess.run(
            [*become, "/usr/bin/python3", "-B", "-c", AS_NOBODY, str(home)],
            capture_output=True,
            text=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            timeout=60,
            check=False,
        )
    assert (done.stdout, done.stderr) == (f"hello from {NOBODY} True\n", "")
