"""Attacks by what a program depends on: packages that attack when they are installed, or when they are used."""

# ruff: noqa: E501 - an attack is one line, so that the table can be read as one
# fmt: off

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sandbox.languages import LANGUAGES
from sandbox.request import Dependency, ExecutionRequest, SourceFile
from sandbox.result import ExecutionStatus as S
from sandbox.result import LimitKind as L
from tests.adversarial.attack import Attack, Ending, Without, calls
from tests.adversarial.table.compilers import COMPILING
from tests.adversarial.table.depletion import FORK_30, WATCHED
from tests.support.registries import PackageSite, npm_archive, wheel
from tests.support.sandboxes import MIB

__all__ = ["ROWS"]

Fill = Callable[[PackageSite], object]

SCRIPTS = "hostile package install scripts"
BOMBS = "zip bombs in packages"
LEAVING = "packages that leave their folder"
ABSENT = "packages that cannot be had"
NAMES = "dependency names that are paths, URLs or options"
CODE = "hostile code in packages"
OTHERS = "packages of others"
PROGRAM = "it is a program like any other, in the sandbox of the run"

FAILED = Ending(status=S.DEPENDENCY_ERROR)
FULL = Ending(status=S.DISK_LIMIT, hits=L.DISK, message="install:")
UNTOLD = Ending(status=(S.DISK_LIMIT, S.DEPENDENCY_ERROR), message="install:", why="bun does not say why it failed, and memory is not measured there")


def _wheel(files: Mapping[str, str | bytes], links: Mapping[str, str] | None = None) -> Fill:
    return lambda site: site.add_wheel("hello", "1.0", files, links=links)


def _npm(files: Mapping[str, str], links: Mapping[str, str] | None = None, name: str = "hello", **manifest: object) -> Fill:
    return lambda site: site.add_npm(name, "1.0.0", npm_archive({f"package/{path}": text for path, text in files.items()}, links), **manifest)


def _composer(files: Mapping[str, str], **package: object) -> Fill:
    return lambda site: site.add_composer("acme/hello", {"1.0.0": files}, **package)


def _row(  # noqa: PLR0917 - a row reads as a line of the table
    name: str, line: str, packages: Fill, code: str, ends: Ending, wall: str, *, language: str = "python", package: str = "", **parts: object) -> Attack:
    names = {"python": "hello", "javascript": "hello", "php": "acme/hello"}
    limits = {} if language == "python" else {"limits": COMPILING}
    return Attack(name=name, line=line, language=language, packages=packages, dependencies=[package or names[language]], code=code, ends=ends, wall=wall, **limits, **parts)  # type: ignore[arg-type]


# A build of a source package that needs nothing else: it answers with a wheel whose module says that it ran.
_BUILT = base64.b64encode(wheel("hello", "1.0", {"hello.py": "print('the code ran')\n"})).decode()
_BUILDER = f"import base64, os\ndef build_wheel(folder, *_):\n  name = 'hello-1.0-py3-none-any.whl'\n  open(os.path.join(folder, name), 'wb').write(base64.b64decode('{_BUILT}'))\n  return name\n"
_SOURCE = {"pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'builder'\nbackend-path = ['.']\n", "builder.py": _BUILDER}
# One of the packages that bun trusts by itself, so that only our ban is in its way.
_TRUSTED = "esbuild"
_MARK = "node -e \"require('fs').writeFileSync('ran', '')\" || echo >ran"
_HOOKS = {"scripts": dict.fromkeys(("preinstall", "install", "postinstall"), _MARK), "hasInstallScript": True}
_HOOKED = _npm({"package.json": '{"name": "esbuild", "version": "1.0.0", "main": "index.js", "scripts": {"preinstall": "echo >ran", "install": "echo >ran", "postinstall": "echo >ran"}}', "index.js": "exports.ran = require('fs').existsSync(__dirname + '/ran');"}, name=_TRUSTED, **_HOOKS)
_DID_IT_RUN = f"console.log(require('{_TRUSTED}').ran ? 'the code ran' : 'no');"
_PLUGIN = r"""<?php
namespace Acme;
file_put_contents('vendor/ran', '');
class Plugin implements \Composer\Plugin\PluginInterface {
    public function activate(\Composer\Composer $c, \Composer\IO\IOInterface $io) { file_put_contents('vendor/ran', ''); }
    public function deactivate(\Composer\Composer $c, \Composer\IO\IOInterface $io) {}
    public function uninstall(\Composer\Composer $c, \Composer\IO\IOInterface $io) {}
}
"""
SETTINGS = {
    "npm_config_ignore_scripts": "false", "npm_config_registry": "http://127.0.0.1:1/", "BUN_CONFIG_REGISTRY": "http://127.0.0.1:1/", "NODE_OPTIONS": "--no-warnings",
    "UV_DEFAULT_INDEX": "http://127.0.0.1:1/", "UV_INDEX_URL": "http://127.0.0.1:1/", "UV_NO_BUILD": "0", "UV_OFFLINE": "1", "PIP_INDEX_URL": "http://127.0.0.1:1/", "HTTP_PROXY": "http://127.0.0.1:1/", "LD_PRELOAD": "/work/x.so",
}
WITHOUT_SCRIPTS = Without(walls=("ban on install scripts",), stdout=b"the code ran\n")
NOT_SEEN = "nothing of the request but names is in the sandbox of an installation"

INSTALLING = [
    _row("source package that builds itself", SCRIPTS, lambda site: site.add_source("hello", "1.0", "", _SOURCE), "import hello", FAILED, "wheels only",
        without=Without(walls=("rule of wheels only",), stdout=b"the code ran\n")),
    _row("scripts of a package", SCRIPTS, _HOOKED, _DID_IT_RUN, Ending(stdout=b"no\n"), "no scripts", language="javascript", package=_TRUSTED, without=WITHOUT_SCRIPTS),
    _row("plugin of the installer", SCRIPTS, _composer({"src/Plugin.php": _PLUGIN}, type="composer-plugin", require={"composer-plugin-api": "^2.0"}, extra={"class": "Acme\\Plugin"}, autoload={"psr-4": {"Acme\\": "src/"}}),
        "<?php echo file_exists('/deps/vendor/acme/hello/src/Plugin.php') ? 'there' : 'absent', file_exists('/deps/vendor/ran') ? ', and ran' : '', PHP_EOL;", Ending(stdout=b"there\n"), "no plugins", language="php"),
    _row("variables for the installer", "variables of a request", _wheel({"hello.py": "print('there')"}), "import hello", Ending(stdout=b"there\n"), NOT_SEEN, env_vars=SETTINGS),
    _row("variables for the installer", "variables of a request", _HOOKED, _DID_IT_RUN, Ending(stdout=b"no\n"), NOT_SEEN, language="javascript", package=_TRUSTED, env_vars=SETTINGS),
]

ZEROS = "\0" * (16 * MIB)
HUGE = {f"hello/{number}.bin": ZEROS for number in range(4)}
MANY = {f"hello/{number}.txt": "" for number in range(3000)}
MODULE = {"package.json": '{"name": "hello", "version": "1.0.0", "main": "index.js"}', "index.js": "console.log('there');"}

DEPLETION = [
    _row("zip bomb in a wheel", BOMBS, _wheel({"hello/__init__.py": "print('there')", **HUGE}), "import hello", FULL, "the size of the installation's tmpfs", without=Without(walls=("disk quota",), stdout=b"there\n")),
    _row("wheel of very many files", BOMBS, _wheel({"hello/__init__.py": "print('there')", **MANY}), "import hello", FULL, "nr_inodes of the installation's tmpfs", without=Without(walls=("inode quota",), stdout=b"there\n")),
    _row("tar bomb", BOMBS, _npm({**MODULE, **HUGE}), "require('hello');", FULL, "the size of the installation's tmpfs", language="javascript", elsewhere={"bubblewrap": UNTOLD}, without=Without(walls=("disk quota",), stdout=b"there\n")),
    _row("zip bomb", BOMBS, _composer(HUGE), "<?php", FULL, "the size of the installation's tmpfs", language="php"),
]

# Names that differ, for an installer that drops the dots must not take two for the same.
OUTSIDE = ("../evil-1", "../../../../../../evil-2", "/deps/evil-3", "/work/evil-4", "/tmp/evil-5", "hello/../../../evil-6")
LINKS = {"hello/passwords": "/etc/passwd", "hello/above": "../../../../../etc/passwd", "hello/root": "/"}
# Prints what is named like an entry that left, what is a link or holds what one would lead to, and the package's own word.
FIND = "import os\nfor top in ('/deps', '/work', '/tmp'):\n  for folder, _, names in os.walk(top):\n    for name in names:\n      p = os.path.join(folder, name)\n      if name.startswith('evil') and '/hello/' not in p or os.path.islink(p) or b'root:x' + b':0' in open(p, 'rb').read(): print(p)\nimport hello"
FIND_JS = "const fs = require('fs');\nconst walk = (d) => { for (const e of fs.readdirSync(d, { withFileTypes: true })) { const p = d + '/' + e.name; if (e.isSymbolicLink() || e.name.startsWith('evil') && !p.startsWith('/node_modules/hello/')) console.log(p); else if (e.isDirectory()) walk(p); } };\n['/node_modules', '/work', '/tmp'].forEach(walk);\nrequire('hello');"
FIND_PHP = "<?php foreach (['/deps', '/work', '/tmp'] as $d) foreach (new RecursiveIteratorIterator(new RecursiveDirectoryIterator($d, FilesystemIterator::SKIP_DOTS)) as $f) if ($f->isLink() || str_starts_with($f->getFilename(), 'evil') && !str_starts_with($f, '/deps/vendor/acme/hello/')) echo $f, PHP_EOL;\nrequire '/deps/vendor/acme/hello/a.php';"
INSIDE = Ending(stdout=b"there\n")
KEPT = "the installer writes below its folder; what it wrote is copied out of there alone, without links that leave"

LEFT = [
    _row("wheel with entries outside of it", LEAVING, _wheel({"hello/__init__.py": "print('there')", **dict.fromkeys(OUTSIDE, "evil")}), FIND, INSIDE, KEPT),
    _row("wheel with links to files of the machine", LEAVING, _wheel({"hello/__init__.py": "print('there')"}, LINKS), FIND, INSIDE, KEPT),
    _row("archive with entries outside of it", LEAVING, _npm({**MODULE, **dict.fromkeys(OUTSIDE, "evil")}), FIND_JS, INSIDE, KEPT, language="javascript"),
    _row("archive with links to files of the machine", LEAVING, _npm(MODULE, {f"package/{path}": to for path, to in LINKS.items()}), FIND_JS, INSIDE, KEPT, language="javascript"),
    _row("archive with entries outside of it", LEAVING, _composer({"a.php": "<?php echo 'there', PHP_EOL;", **dict.fromkeys(OUTSIDE, "evil")}), FIND_PHP, INSIDE, KEPT, language="php"),
]

MISSING = [
    _row("package that is not there", ABSENT, lambda _: None, code, FAILED, "the registry's own answer", language=language)
    for language, code in {"python": "import hello", "javascript": "", "php": "<?php"}.items()
]

# Each is refused by the grammar of its ecosystem, where the node does install packages.
TRICKS = [
    ("python", "hello", "@ https://evil.example/hello-1.0-py3-none-any.whl", "address"),
    ("python", "hello", "@ git+https://evil.example/hello@main", "git reference"),
    ("python", "hello", "1.0 --index-url http://evil.example", "option"),
    ("javascript", "hello", "https://evil.example/hello.tgz", "address"),
    ("javascript", "hello", "github:evil/hello#main", "git reference"),
    ("javascript", "hello", "file:../../etc", "path"),
    ("javascript", "hello", "npm:evil@1.0.0", "other name"),
    ("php", "acme/hello", "dev-main#0123456", "git reference"),
    ("php", "acme/hello", "1.0 as 2.0 --no-plugins=0", "option"),
]


def _asking(language: str, name: str, requirement: str) -> ExecutionRequest:
    file = SourceFile(path=LANGUAGES[language].default_file, content=b"")
    return ExecutionRequest(language=language, files=[file], dependencies=[Dependency(name=name, requirement=requirement)])


REQUESTED = [
    Attack(name=f"version that is {'an' if what[0] in 'ao' else 'a'} {what}", language=language, line=NAMES, wall="each ecosystem's grammar lets a name and a range through", packages=lambda _: None, limits=COMPILING,
        build=partial(_asking, language, name, requirement), ends=Ending(error="RequestError: dependencies: a package and a range of versions are expected"))
    for language, name, requirement, what in TRICKS
]

# Each took years to read, by the service itself and for everybody.
SLOW = [
    ("javascript", "hello", "1   " * 60 + "!", "range of many blanks"),
    ("php", "a" * 60, "", "name that may be parted in many ways"),
    ("php", "acme/hello", "1   " * 60 + "!", "range of many blanks"),
]
REQUESTED += [
    Attack(name=what, language=language, line="texts that are slow to read", wall="no part of a grammar fits the same text in two ways", packages=lambda _: None, limits=COMPILING,
        build=partial(_asking, language, name, requirement), ends=Ending(error="RequestError: dependencies: a package and a range of versions are expected"))
    for language, name, requirement, what in SLOW
]

# unshare(CLONE_NEWUSER) as x86-64 has it; what the kernel answers is returned.
NATIVE = bytes.fromhex("b810010000 bf00000010 0f05 c3")
LOADER = """
import ctypes, os
libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p
file = os.open(os.path.join(os.path.dirname(__file__), 'code.bin'), os.O_RDONLY)
page = libc.mmap(None, ctypes.c_size_t(4096), 5, 2, file, ctypes.c_long(0))
print(os.strerror(-ctypes.CFUNCTYPE(ctypes.c_long)(page)()))
"""
HOST_FILES = "import os; print([p for p in ('/root', '/home', '/run', '/etc/shadow', '/var/run/docker.sock', '/var/run/dstack.sock', '/work/.layer') if os.path.exists(p)])\n"
REACH = "import sys\nfor port in (int(sys.argv[1]), 8081): attempt(lambda: socket.create_connection(('127.0.0.1', port), 5))"
WRITE = "import hello\nfor f in (lambda: open('/deps/evil', 'w'), lambda: open(hello.__file__, 'w'), lambda: os.unlink(hello.__file__), lambda: os.rename(os.path.dirname(hello.__file__), '/deps/x'), lambda: os.chmod(hello.__file__, 0o777), lambda: os.symlink('/work/main.py', '/deps/evil'), lambda: os.setxattr(hello.__file__, 'user.x', b'')): attempt(f)"
UNCHANGED = "import hello, os\nprint(hello.VERSION, os.path.exists('/deps/evil'), oct(os.stat(hello.__file__).st_mode & 0o777))"

USED = [
    _row("thirty processes at import", CODE, _wheel({"hello.py": FORK_30}), "import hello", Ending(status=S.PROCESS_LIMIT, stdout=b"9\n"), PROGRAM,
        elsewhere={"bubblewrap": Ending(status=(S.PROCESS_LIMIT, S.NONZERO_EXIT), stdout=re.compile(rb"(9\n|10\n)?"), why=WATCHED)}, without=Without(walls=("process limit",), stdout=b"30\n")),
    _row("files of the host before the program starts", CODE, _wheel({"hello.pth": HOST_FILES}), "", Ending(stdout=b"[]\n"), PROGRAM),
    _row("native code in a package", CODE, _wheel({"hello/__init__.py": LOADER, "hello/code.bin": NATIVE}), "import hello", Ending(stdout=b"Operation not permitted\n"), PROGRAM + ": the seccomp filter",
        without=Without(walls=("seccomp filter",), stdout=b"Success\n")),
    _row("reaching the registry from the run", "registry of a run", _wheel({"hello.py": ""}), calls("import hello\n" + REACH), Ending(stdout=b"EAFNOSUPPORT\n" * 2), "only the installation has a way there", args=["{registry}"],
        without=Without(walls=("seccomp filter", "network namespace"), stdout=re.compile(rb"ok\n[A-Z]+\n"))),
    _row("writing to the packages of others", OTHERS, _wheel({"hello/__init__.py": "VERSION = 1"}), calls(WRITE), Ending(stdout=b"EROFS\n" * 7, then=b"1 False 0o444\n"), "a layer is mounted read-only, and is nobody's own",
        afterwards=UNCHANGED),
]

ROWS: Sequence[Attack] = [*INSTALLING, *DEPLETION, *LEFT, *MISSING, *REQUESTED, *USED]
