"""Runs a program in every language of a finished tree, before the tree is given its name.

Invariant: a tree that was sealed has answered right in each of its languages, with a word that was drawn for
that check.
"""

import re
import secrets
from collections.abc import Callable

from sandbox.bounds import StageBounds
from sandbox.errors import SystemFailureError
from sandbox.languages import find
from sandbox.languages.language import Provision
from sandbox.request import ExecutionRequest, SourceFile
from sandbox.rootfs.recipe import LanguageRecipe
from sandbox.rootfs.shell import TreeShell
from sandbox.tree import Runtime

__all__ = ["SAMPLES", "read_version", "verify"]

# Each reads a word on standard input and prints it reversed, in upper case.
SAMPLES = {
    "python": "print(input()[::-1].upper())\n",
    "javascript": "const w = require('fs').readFileSync(0, 'utf8').trim();\n"
    "console.log([...w].reverse().join('').toUpperCase());\n",
    "typescript": "import { readFileSync } from 'node:fs';\n"
    "const w: string = readFileSync(0, 'utf8').trim();\n"
    "console.log([...w].reverse().join('').toUpperCase());\n",
    "java": "public class Sample {\n  public static void main(String[] args) {\n"
    "    var w = new java.util.Scanner(System.in).next();\n"
    "    System.out.println(new StringBuilder(w).reverse().toString().toUpperCase());\n  }\n}\n",
    "go": 'package main\n\nimport (\n\t"fmt"\n\t"slices"\n\t"strings"\n)\n\nfunc main() {\n\tvar w string\n'
    "\tfmt.Scan(&w)\n\tb := []byte(w)\n\tslices.Reverse(b)\n\tfmt.Println(strings.ToUpper(string(b)))\n}\n",
    "cpp": "#include <algorithm>\n#include <cctype>\n#include <iostream>\n#include <string>\n"
    "int main() {\n  std::string w;\n  std::cin >> w;\n  std::reverse(w.begin(), w.end());\n"
    "  for (char &c : w) c = std::toupper(c);\n  std::cout << w << std::endl;\n}\n",
    "php": "<?php\necho strtoupper(strrev(trim(fgets(STDIN)))), PHP_EOL;\n",
    "swift": 'import Foundation\nlet w = readLine() ?? ""\n'
    "print(String(w.reversed()).uppercased().trimmingCharacters(in: .whitespaces))\n",
}
_VERSION = re.compile(r"\d+(?:\.\d+)*")


def read_version(printed: str) -> str:
    """Find the version in what a program prints about itself: the first number with its dots.

    Raises:
        SystemFailureError: there is none.
    """
    match = _VERSION.search(printed)
    if match is None:
        raise SystemFailureError(f"language tree: expected a version, received {printed[:100]!r}")
    return match[0]


def verify(
    language: LanguageRecipe, shell: TreeShell, new_word: Callable[[], str] = lambda: secrets.token_hex(8)
) -> Runtime:
    """Ask a language for its version, run its sample, and return the runtime.

    Raises:
        SystemFailureError: a program of it is missing, fails, or answers wrongly.
    """
    for path in language.programs.values():
        if not (shell.root / path.lstrip("/")).exists():
            raise SystemFailureError(f"language tree: {language.name}: {path} is missing in the tree")
    runtime = Runtime(
        language=language.name,
        version=read_version(shell.require(language.version_argv)),
        programs=dict(language.programs),
    )
    word, declared = new_word(), find(language.name)
    request = ExecutionRequest(
        language=language.name,
        files=(SourceFile(path=declared.default_file, content=SAMPLES[language.name].encode()),),
        stdin=f"{word}\n".encode(),
    )
    plan = declared.plan(request, Provision(runtime=runtime, bounds=StageBounds()))
    for file in (*request.files, *plan.files):
        place = shell.work / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content)
    printed = ""
    for stage in plan.stages:
        printed = shell.require(stage.argv, env=stage.env, stdin=request.stdin)
    expected = word[::-1].upper()
    if printed.strip() != expected:
        raise SystemFailureError(
            f"language tree: {language.name} {runtime.version}: expected {expected!r}, "
            f"received {printed[:200]!r}"
        )
    return runtime
