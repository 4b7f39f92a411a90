"""Attacks on compilers: they are programs like any other, in a sandbox of their own limits."""

# ruff: noqa: E501 - an attack is one line, so that the table can be read as one
# fmt: off

import base64
import re
from dataclasses import replace

from sandbox.request import ExecutionRequest, Limits, SourceFile
from sandbox.result import ExecutionStatus as S
from tests.adversarial.attack import Attack, Ending
from tests.support.sandboxes import MIB

__all__ = ["COMPILING", "ROWS"]

COMPILING = Limits(wall_time_s=60.0, cpu_time_s=40.0, memory_bytes=512 * MIB, processes=10, output_bytes=64 * 1024)
SHORT = replace(COMPILING, wall_time_s=4.0, cpu_time_s=3.0)
FAILED = Ending(status=S.COMPILATION_ERROR)
BOUNDED = (S.COMPILATION_ERROR, S.CPU_LIMIT, S.MEMORY_LIMIT, S.TIMEOUT, S.DISK_LIMIT, S.FILE_SIZE_LIMIT, S.NONZERO_EXIT)
LIMITS = "the compile stage has limits of its own, and a group of its own"


def _secret(name: str, language: str, code: str) -> Attack:
    """Return a row of a program that includes a file of the host into its compilation."""
    return Attack(name=name, language=language, line='#include "/etc/shadow"', wall="the compiler runs inside the sandbox", code=code, limits=COMPILING,
        ends=Ending(status=S.COMPILATION_ERROR, stderr=re.compile(rb"(?!.*root:[*!$]).*", re.DOTALL)))


# public class P implements com.sun.source.util.Plugin { public String getName() { return "P"; }
#   public boolean autoStart() { new java.io.File("/work/ran").mkdir(); return false; } public void init(JavacTask t, String... a) {} }
PLUGIN = base64.b64decode("yv66vgAAAD0AHQoAAgADBwAEDAAFAAYBABBqYXZhL2xhbmcvT2JqZWN0AQAGPGluaXQ+AQADKClWCAAIAQABUAcACgEADGphdmEvaW8vRmlsZQgADAEACS93b3JrL3JhbgoACQAODAAFAA8BABUoTGphdmEvbGFuZy9TdHJpbmc7KVYKAAkAEQwAEgATAQAFbWtkaXIBAAMoKVoHAAgHABYBABpjb20vc3VuL3NvdXJjZS91dGlsL1BsdWdpbgEABENvZGUBAAdnZXROYW1lAQAUKClMamF2YS9sYW5nL1N0cmluZzsBAAlhdXRvU3RhcnQBAARpbml0AQA1KExjb20vc3VuL3NvdXJjZS91dGlsL0phdmFjVGFzaztbTGphdmEvbGFuZy9TdHJpbmc7KVYAIQAUAAIAAQAVAAAABAABAAUABgABABcAAAARAAEAAQAAAAUqtwABsQAAAAAAAQAYABkAAQAXAAAADwABAAEAAAADEgewAAAAAAABABoAEwABABcAAAAbAAMAAQAAAA+7AAlZEgu3AA22ABBXA6wAAAAAAIEAGwAcAAEAFwAAAA0AAAADAAAAAbEAAAAAAAA=")


def _with_plugin() -> ExecutionRequest:
    """Return a program with a class that the compiler would start by itself, with a compiler's limits."""
    main = b'class Main { public static void main(String[] a) { System.out.println(new java.io.File("/work/ran").exists()); } }'
    files = {"Main.java": main, "P.class": PLUGIN, "META-INF/services/com.sun.source.util.Plugin": b"P"}
    return ExecutionRequest(language="java", entry_point="Main.java", files=[SourceFile(path=p, content=c) for p, c in files.items()])


NO_CLASS = Ending(error="RequestError: entry_point")
SLOW = [
    ("java", "empty lines", "\n", NO_CLASS), ("java", "comments that do not end", "/* ", NO_CLASS), ("java", "modifiers of nothing", "final ", NO_CLASS),
    ("java", "strings that do not end", '"\\', NO_CLASS), ("go", "empty lines", "\n", FAILED), ("go", "comments of nothing", "//\n", FAILED),
]

ROWS = [
    Attack(name="template recursion", language="cpp", line="template recursion", wall="the compiler's own depth", code="template<int N> struct X { X<N+1> x; };\nX<0> x;\nint main() {}", limits=COMPILING, ends=FAILED),
    Attack(name="template that doubles", language="cpp", line="template recursion", wall=LIMITS, code="template<class T,int N> struct P { using A=typename P<T*,N-1>::A; using B=typename P<T&&,N-1>::B; A* a; B* b; };\ntemplate<class T> struct P<T,0> { using A=T; using B=T; };\nint main() { P<int,899> p; }", limits=SHORT, ends=Ending(status=BOUNDED)),
    Attack(name="macro that doubles", language="cpp", line="template recursion", wall=LIMITS, code="#define A(x) x x x x x x x x x x\n#define B(x) A(A(A(x)))\nint x = 0 B(B(B(+1)));\nint main() {}", limits=SHORT, ends=Ending(status=BOUNDED)),
    Attack(name="constant folding", language="cpp", line="constant-folding blow-up", wall="the compiler's own bound on operations", code="constexpr unsigned f(unsigned n) { unsigned s=0; for (unsigned i=0;i<n;i++) s+=i; return s; }\nconstexpr unsigned x=f(4000000000u);\nint main() { return x; }", limits=SHORT, ends=Ending(status=BOUNDED)),
    Attack(name="array of gigabytes in the program", language="cpp", line="constant-folding blow-up", wall="the size of a file, the disk quota", code="int a[1u<<29]={1};\nint main() { return a[5]; }", limits=SHORT, ends=Ending(status=BOUNDED)),
    Attack(name="including a device", language="cpp", line='#include "/dev/zero"', wall=LIMITS, code='#include "/dev/zero"\nint main() {}', limits=SHORT, ends=Ending(status=BOUNDED)),
    Attack(name="including random data", language="cpp", line='#include "/dev/zero"', wall=LIMITS, code='#include "/dev/urandom"\nint main() {}', limits=SHORT, ends=Ending(status=BOUNDED)),
    Attack(name="including standard input", language="cpp", line='#include "/dev/zero"', wall="a compiler's input is empty", code='#include "/dev/stdin"\nint main() {}', limits=COMPILING, ends=Ending(status=(S.SUCCESS, S.COMPILATION_ERROR))),
    _secret("including the host's passwords", "cpp", '#include "/etc/shadow"\nint main() {}'),
    _secret("assembling the host's passwords", "cpp", 'asm(".incbin \\"/etc/shadow\\"");\nint main() {}'),
    _secret("embedding the host's passwords", "go", 'package main\n\nimport _ "embed"\n\n//go:embed /etc/shadow\nvar s string\n\nfunc main() { print(s) }\n'),
    _secret("importing the host's passwords", "typescript", "import s from '/etc/shadow';\nconsole.log(s);\n"),
    Attack(name="huge error output", language="cpp", line="huge error output", wall="kept to the cap, counted to the end", code="\n".join(f"x{n} y{n}; int f{n}(z{n} a) {{ return q{n}.r; }}" for n in range(3000)), limits=COMPILING, ends=Ending(status=S.COMPILATION_ERROR)),
    Attack(name="include of oneself", language="cpp", line="huge error output", wall="the compiler's own depth", code='#include "main.cpp"\nint main() {}', limits=COMPILING, ends=FAILED),
    Attack(name="warning without end", language="cpp", line="huge error output", wall="kept to the cap, counted to the end", code='#pragma message "' + "A" * 200_000 + '"\nint main() {}', limits=COMPILING, ends=Ending(status=(S.SUCCESS, S.COMPILATION_ERROR))),
    Attack(name="linker told to run a program", language="cpp", line="options of a compiler", wall="no option comes from the source; the linker runs inside", code='__asm__(".section .note.GNU-stack; .pushsection .drectve; .ascii \\"-run\\"; .popsection");\nint main() { return 3; }', limits=COMPILING, ends=Ending(status=S.NONZERO_EXIT)),
    Attack(name="options of the C preprocessor in Go", language="go", line="options of a compiler", wall="cgo is off", code='package main\n\n// #cgo CFLAGS: -fplugin=/work/x.so\nimport "C"\n\nfunc main() {}\n', limits=COMPILING, ends=FAILED),
    Attack(name="generated code in Go", language="go", line="options of a compiler", wall="nothing is generated by a build", code='package main\n\nimport "os"\n\n//go:generate touch /work/made\nfunc main() {\n\t_, err := os.Stat("/work/made")\n\tprintln(err != nil)\n}\n', limits=COMPILING, ends=Ending(stderr=b"true\n")),
    Attack(name="type that never ends", language="typescript", line="template recursion", wall="the compiler's own depth, and the stage's limits", code="type T<N extends any[]> = T<[...N, ...N, 1]>;\nconst x: T<[1]> = 1;\n", limits=replace(COMPILING, cpu_time_s=10.0), ends=Ending(status=BOUNDED)),
    Attack(name="expression that takes forever to type", language="swift", line="template recursion", wall="the compiler's own bound, and the stage's limits", code="let x = " + " + ".join(["1", "2.0", "-3", '"a".count', "[1].count"] * 8) + "\nprint(x)\n", limits=replace(COMPILING, cpu_time_s=8.0), ends=Ending(status=BOUNDED)),
    Attack(name="annotation processor in the sources", language="java", line="options of a compiler", wall="annotation processing is off, or runs inside", code='import java.util.*;\nclass Main { public static void main(String[] a) { System.out.println(System.getenv().containsKey("JAVA_TOOL_OPTIONS")); } }\n', limits=COMPILING, ends=Ending(stdout=b"false\n")),
    Attack(name="plugin that the compiler starts by itself", language="java", line="options of a compiler", wall="nothing of the program's is on the path of processors", build=_with_plugin, limits=COMPILING, ends=Ending(stdout=b"false\n")),
    Attack(name="constant of megabytes", language="java", line="constant-folding blow-up", wall="the compiler's own bound", code='class Main { static final String A="' + "x" * 60000 + '"; static final String B=A+A, C=B+B+B; public static void main(String[] a) { System.out.println(C.length()); } }\n', limits=COMPILING, ends=Ending(status=(S.COMPILATION_ERROR, S.NONZERO_EXIT))),
    *(Attack(name=f"source of {what}", language=language, line="texts that are slow to read", wall="what the service reads of a source, it reads once", code=text * 100_000, limits=COMPILING, ends=ends)
        for language, what, text, ends in SLOW),
]
