"""The attacks of the other tables in the other languages, where a runtime could make a difference."""

# ruff: noqa: E501 - an attack is one line, so that the table can be read as one
# fmt: off

import re
from dataclasses import replace

from sandbox.result import ExecutionStatus as S
from sandbox.result import LimitKind as L
from tests.adversarial.attack import Attack, Ending
from tests.adversarial.table.compilers import COMPILING

__all__ = ["ROWS"]

BUSY = replace(COMPILING, cpu_time_s=6.0)
HEAP = Ending(status=(S.MEMORY_LIMIT, S.NONZERO_EXIT, S.SIGNALLED))
REFUSED = Ending(stdout=re.compile(rb"(no|)\n?"), status=(S.SUCCESS, S.NONZERO_EXIT))


def _go(body: str, *imports: str) -> str:
    lines = "".join(f'\t"{name}"\n' for name in imports)
    return f"package main\n\nimport (\n{lines})\n\nfunc main() {{\n{body}\n}}\n"


def _java(body: str) -> str:
    return f"import java.util.*; import java.net.*; import java.nio.file.*;\nclass Main {{ public static void main(String[] a) throws Exception {{ {body} }} }}\n"


def _cpp(body: str) -> str:
    return f"#include <cstdio>\n#include <cstdlib>\n#include <cstring>\n#include <fcntl.h>\n#include <sys/socket.h>\n#include <sys/wait.h>\n#include <thread>\n#include <unistd.h>\n#include <vector>\nint main() {{ {body} }}\n"


BUSY_LOOPS = {
    "javascript": "for (;;);",
    "typescript": "for (;;);",
    "java": _java("for (int i = 0;; i++) if (i == 1 && a.length > 5) break;"),
    "go": _go("\tfor len(os.Args) > 0 {\n\t}", "os"),
    "cpp": _cpp("volatile int x = 0; for (;;) x = x + 1;"),
    "php": "<?php while (true);",
    "swift": "var x = 0\nwhile true { x &+= 1 }\n",
}
HEAPS = {
    "javascript": "const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 1));",
    "typescript": "const a: Uint8Array[] = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1));",
    "java": _java("var l = new ArrayList<byte[]>(); for (;;) l.add(new byte[1 << 20]);"),
    "go": _go("\tvar a [][]byte\n\tfor len(os.Args) > 0 {\n\t\tb := make([]byte, 1<<20)\n\t\tfor i := 0; i < len(b); i += 4096 {\n\t\t\tb[i] = 1\n\t\t}\n\t\ta = append(a, b)\n\t}", "os"),
    "cpp": _cpp("for (;;) { char *p = (char *)malloc(1 << 20); if (!p) return 1; memset(p, 1, 1 << 20); }"),
    "php": "<?php ini_set('memory_limit', -1); $a = []; while (true) $a[] = str_repeat('x', 1 << 20);",
    "swift": "var a: [[UInt8]] = []\nwhile true { a.append([UInt8](repeating: 1, count: 1 << 20)) }\n",
}
NETWORKS = {
    "javascript": "require('net').connect(80, '127.0.0.1').on('error', () => console.log('no')).on('connect', () => console.log('yes'));",
    "java": _java('try { new Socket("127.0.0.1", 80); System.out.println("yes"); } catch (Exception e) { System.out.println("no"); }'),
    "go": _go('\tif _, err := net.Dial("tcp", "127.0.0.1:80"); err != nil {\n\t\tfmt.Println("no")\n\t}', "fmt", "net"),
    "cpp": _cpp('puts(socket(AF_INET, SOCK_STREAM, 0) < 0 ? "no" : "yes");'),
    "php": "<?php echo @fsockopen('127.0.0.1', 80) ? 'yes' : 'no', PHP_EOL;",
    "swift": 'import Foundation\nprint(socket(AF_INET, 1, 0) < 0 ? "no" : "yes")\n',
}
SECRETS = {
    "javascript": "try { console.log(require('fs').readFileSync('/etc/shadow', 'utf8')) } catch { console.log('no') }",
    "java": _java('System.out.println(Files.exists(Path.of("/etc/shadow")) || Files.exists(Path.of("/root")) ? "yes" : "no");'),
    "php": "<?php echo file_exists('/etc/shadow') || file_exists('/root') ? 'yes' : 'no', PHP_EOL;",
}
FORKS = {
    "javascript": "const { spawn } = require('child_process'); for (let i = 0; i < 40; i++) spawn('/bin/sleep', ['20']).on('error', () => {}); setTimeout(() => process.exit(0), 15000);",
    "java": _java('for (int i = 0; i < 40; i++) new ProcessBuilder("/bin/sleep", "20").start(); Thread.sleep(15000);'),
    "go": _go('\tfor i := 0; i < 40; i++ {\n\t\tif err := exec.Command("/bin/sleep", "20").Start(); err != nil {\n\t\t\tpanic(err)\n\t\t}\n\t}\n\ttime.Sleep(15 * time.Second)', "os/exec", "time"),
    "cpp": _cpp('for (int i = 0; i < 40; i++) { int p = fork(); if (p < 0) { perror("fork"); return 1; } if (!p) { sleep(20); _exit(0); } } sleep(15);'),
    "php": "<?php for ($i = 0; $i < 40; $i++) if (!proc_open(['/bin/sleep', '20'], [], $p)) exit(1); sleep(15);",
}

ROWS = [
    *(Attack(name="busy loop", language=language, line="ten busy processes", wall="the group's CPU clock", code=code, limits=BUSY, ends=Ending(status=S.CPU_LIMIT)) for language, code in BUSY_LOOPS.items()),
    *(Attack(name="heap bomb", language=language, line="heap bomb", wall="the memory group's limit", code=code, limits=COMPILING, ends=HEAP) for language, code in HEAPS.items()),
    *(Attack(name="loopback of the service", language=language, line="loopback", wall="the seccomp filter, and a network name space", code=code, limits=COMPILING, ends=Ending(stdout=b"no\n")) for language, code in NETWORKS.items()),
    *(Attack(name="passwords of the host", language=language, line="host files", wall="files of the sandbox's own stand there", code=code, limits=COMPILING, ends=Ending(stdout=b"no\n")) for language, code in SECRETS.items()),
    *(Attack(name="thirty processes", language=language, line="fork bomb", wall="processes are counted, tasks bounded", code=code, limits=COMPILING, ends=Ending(status=(S.PROCESS_LIMIT, S.NONZERO_EXIT))) for language, code in FORKS.items()),
    Attack(name="a thousand threads", language="go", line="thread bomb", wall="pids.max counts threads too", code=_go("\tfor i := 0; i < 1000; i++ {\n\t\tgo func() {\n\t\t\truntime.LockOSThread()\n\t\t\ttime.Sleep(9 * time.Second)\n\t\t}()\n\t}\n\ttime.Sleep(5 * time.Second)", "runtime", "time"), limits=COMPILING, ends=Ending(status=(S.PROCESS_LIMIT, S.NONZERO_EXIT, S.SIGNALLED))),
    Attack(name="a thousand threads", language="java", line="thread bomb", wall="pids.max counts threads too", code=_java("for (int i = 0; i < 1000; i++) { var t = new Thread(() -> { try { Thread.sleep(9000); } catch (Exception e) { } }); t.setDaemon(true); t.start(); }"), limits=COMPILING, ends=Ending(status=(S.PROCESS_LIMIT, S.NONZERO_EXIT))),
    Attack(name="a thousand threads", language="cpp", line="thread bomb", wall="pids.max counts threads too", code=_cpp("std::vector<std::thread> v; for (int i = 0; i < 1000; i++) v.emplace_back([] { sleep(9); });"), limits=COMPILING, ends=Ending(status=(S.PROCESS_LIMIT, S.SIGNALLED))),
    Attack(name="switched-off functions", language="php", line="options of a compiler", wall="PHP's own settings guard nothing here", code="<?php ini_set('disable_functions', ''); echo shell_exec('id -u');", limits=COMPILING, ends=Ending(stdout=b"1000\n")),
    Attack(name="remote include", language="php", line="DNS", wall="no route anywhere", code="<?php ini_set('allow_url_include', '1'); echo (@include 'http://169.254.169.254/') ? 'yes' : 'no', PHP_EOL;", limits=COMPILING, ends=Ending(stdout=b"no\n")),
    Attack(name="inspector of the runtime", language="javascript", line="loopback", wall="the seccomp filter", code="try { require('inspector').open(9229, '127.0.0.1'); } catch {}\nconsole.log(require('inspector').url() === undefined ? 'no' : 'yes'); process.exit(0);", limits=COMPILING, ends=Ending(stdout=b"no\n")),
    Attack(name="attaching to a virtual machine", language="java", line="ptrace", wall="a process name space, and a tmpfs for each sandbox", code=_java('System.out.println(Files.list(Path.of("/tmp")).filter(p -> p.getFileName().toString().startsWith(".java_pid")).count());'), limits=COMPILING, ends=Ending(stdout=b"0\n")),
    Attack(name="unsafe memory", language="go", line="/proc/self/mem", wall="the program's own death", code=_go("\tp := (*int)(unsafe.Pointer(uintptr(len(os.Args))))\n\tfmt.Println(*p)", "fmt", "os", "unsafe"), limits=COMPILING, ends=Ending(status=(S.NONZERO_EXIT, S.SIGNALLED))),
    Attack(name="foreign library", language="php", line="nested user namespaces", wall="the seccomp filter", code="<?php if (!class_exists('FFI')) { echo 'no', PHP_EOL; exit; } $c = FFI::cdef('int unshare(int);', 'libc.so.6'); echo $c->unshare(0x10000000) < 0 ? 'no' : 'yes', PHP_EOL;", limits=COMPILING, ends=Ending(stdout=b"no\n")),
    Attack(name="output flood", language="javascript", line="output flood", wall="kept to the cap, counted to the end", code="for (let i = 0; i < 300; i++) require('fs').writeSync(1, 'x'.repeat(1000));", limits=COMPILING, ends=Ending(stdout=b"x" * COMPILING.output_bytes, hits=L.STDOUT)),
    Attack(name="orphan daemon", language="cpp", line="orphan daemon", wall="init's death kills its process name space", code=_cpp('if (!fork()) { setsid(); if (!fork()) sleep(3600); _exit(0); } puts("left");'), limits=COMPILING, ends=Ending(stdout=b"left\n")),
    Attack(name="orphan daemon", language="javascript", line="orphan daemon", wall="init's death kills its process name space", code="require('child_process').spawn('/bin/sleep', ['3600'], { detached: true, stdio: 'inherit' }).unref(); console.log('left');", limits=COMPILING, ends=Ending(stdout=b"left\n")),
]
