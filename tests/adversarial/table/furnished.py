"""Attacks on what an operator adds to a sandbox: a gateway, which is the only way out, and folders to read."""

# ruff: noqa: E501 - an attack is one line, so that the table can be read as one
# fmt: off

import re

from tests.adversarial.attack import Attack, Ending, Without, calls
from tests.adversarial.guard import GATEWAY_PORT

__all__ = ["ROWS"]

NONE = {"gvisor": Ending(error="SandboxUnavailableError", why="a guest has no gateway: the request is refused")}
GATEWAY = "misuse of a gateway"
NOTHING_ELSE = "the name space has loopback, and on it one socket of ours"


def _with_gateway(name: str, code: str, stdout: bytes, *, wall: str = NOTHING_ELSE, args: tuple[str, ...] = ()) -> Attack:
    return Attack(name=name, line=GATEWAY, wall=wall, code=calls(code), ends=Ending(stdout=stdout), elsewhere=NONE, has_gateway=True, args=args)


ASK = (
    "import sys, urllib.parse\np = urllib.parse.urlsplit(os.environ['https_proxy'])\n"
    "def ask(line):\n  s = socket.create_connection((p.hostname, p.port), 5); s.sendall(line.encode() + b' HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
    "  print((s.recv(99).split() + [b'', b'closed'])[1].decode())\n"
)


def _with_policy(name: str, code: str, without: Without | None = None, args: tuple[str, ...] = ()) -> Attack:
    return Attack(name=name, line="misuse of an egress policy", wall="the proxy opens what the policy names, by address as well as by name", code=calls(ASK + code),
        ends=Ending(stdout=re.compile(rb"((4\d\d|closed)\n)+")), elsewhere=NONE, network="api", without=without, args=args)


ROWS = [
    _with_policy("the service's port through the proxy", "ask(f'CONNECT 127.0.0.1:{sys.argv[1]}')", Without(walls=("egress policy",), stdout=b"200\n"), args=("{port}",)),
    _with_policy("metadata of the cloud through the proxy", "ask('CONNECT 169.254.169.254:80'); ask('GET http://169.254.169.254/latest/')"),
    _with_policy("loopback in disguise", "for h in ('localhost','[::1]','[::ffff:127.0.0.1]','0x7f000001','2130706433','127.1','0177.0.0.1','0.0.0.0'): ask(f'CONNECT {h}:{sys.argv[1]}')", args=("{port}",)),
    _with_policy("port that the policy does not name", "ask('CONNECT api.example.test:22'); ask('CONNECT api.example.test:0'); ask('CONNECT api.example.test:99999'); ask('CONNECT api.example.test')"),
    _with_policy("names that look alike", "for h in ('api.example.test.evil.test','evilapi.example.test','x@evil.test','api.example.test%00.evil.test','\u0430pi.example.test'): ask(f'CONNECT {h}:443')"),
    _with_policy("addresses that are no address", "for u in ('file:///etc/passwd','ftp://api.example.test/','gopher://api.example.test:443/_x','http://','//api.example.test/','/etc/passwd','*'): ask(f'GET {u}')"),
    _with_policy("second request in the first", "ask('GET http://api.example.test:80/ HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\nContent-Length: 5\\r\\n\\r\\nGET http://127.0.0.1/')"),
    _with_gateway("the gateway answers", f"s=socket.create_connection(('127.0.0.1',{GATEWAY_PORT}),5); s.sendall(b'hello'); print(s.recv(9).decode())", b"HELLO\n", wall="allowed: it is what the operator added"),
    _with_gateway("another port beside the gateway", "attempt(lambda: socket.create_connection(('127.0.0.1', 22), 3)); attempt(lambda: socket.create_connection(('127.0.0.1', 80), 3))", b"ECONNREFUSED\n" * 2),
    _with_gateway("the service's port beside the gateway", "import sys\nattempt(lambda: socket.create_connection(('127.0.0.1', int(sys.argv[1])), 3))", b"ECONNREFUSED\n", args=("{port}",)),
    _with_gateway("other addresses beside the gateway", "for a in ('169.254.169.254','10.0.0.1','192.168.0.1','8.8.8.8','172.17.0.1'): attempt(lambda: socket.create_connection((a, 80), 3))", b"ENETUNREACH\n" * 5),
    _with_gateway("other names of loopback", "for a in ('127.0.0.2','127.255.255.254','0.0.0.0'): attempt(lambda: socket.create_connection((a, 80), 3))", b"ECONNREFUSED\n" * 3),
    _with_gateway("IPv6 beside the gateway", "s=socket.socket(10,1); attempt(s.connect, ('2001:db8::1', 80)); s=socket.socket(10,1); attempt(s.connect, ('::ffff:169.254.169.254', 80))", b"ENETUNREACH\nENETUNREACH\n"),
    _with_gateway("datagrams beside the gateway", "for k in (2, 3, 5): attempt(socket.socket, 2, k); attempt(socket.socket, 10, k)", b"EAFNOSUPPORT\n" * 6, wall="the seccomp filter allows streams only"),
    _with_gateway("other protocols beside the gateway", "for p in (132, 262, 136): attempt(socket.socket, 2, 1, p)\nattempt(socket.socket, 16, 3); attempt(socket.socket, 40, 1); attempt(socket.socket, 17, 3)", b"EAFNOSUPPORT\n" * 6, wall="the seccomp filter allows TCP only"),
    _with_gateway("abstract socket of the service, beside the gateway", "import sys\nattempt(socket.socket(socket.AF_UNIX).connect, '\\0' + sys.argv[1])", b"ECONNREFUSED\n", args=("{abstract}",)),
    _with_gateway("taking the gateway's port", f"s=socket.socket(); s.setsockopt(1,2,1); s.setsockopt(1,15,1) ; attempt(s.bind, ('127.0.0.1', {GATEWAY_PORT}))", b"EADDRINUSE\n", wall="the socket is ours, and listens already"),
    _with_gateway("more connections than the gateway takes", f"k=[]\ntry:\n  for _ in range(500):\n    s=socket.socket(); s.setblocking(False); s.connect_ex(('127.0.0.1',{GATEWAY_PORT})); k.append(s)\nexcept OSError: pass\nprint(len(k) < 100)", b"True\n", wall="RLIMIT_NOFILE, and a bounded backlog"),
    Attack(name="writing to a folder of the operator", line="folders of the operator", wall="it is mounted read-only", code=calls("print(open('/opt/shared/file').read()); attempt(open,'/opt/shared/file','w'); attempt(open,'/opt/shared/new','w'); attempt(os.unlink,'/opt/shared/file')"), has_mount=True,
        ends=Ending(stdout=b"of the operator\n" + b"EROFS\n" * 3), without=Without(walls=("read-only mounts",), stdout=b"of the operator\nok\nok\nok\n")),
    Attack(name="leaving a folder of the operator", line="folders of the operator", wall="a root of its own", code=calls("print(os.listdir('/opt'), os.path.exists('/opt/shared/../../root')); attempt(os.link,'/opt/shared/file','/work/l')"), has_mount=True,
        ends=Ending(stdout=re.compile(rb"\['shared'\] False\n(EXDEV|EROFS|EPERM)\n"))),
]
