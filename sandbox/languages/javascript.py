"""JavaScript: Node.js runs the file, and tells CommonJS from an ES module by source and ``package.json``."""

from collections.abc import Sequence

from sandbox.languages.entry import choose_entry, inside
from sandbox.languages.heap import heap_mib
from sandbox.languages.language import HostPrograms, InstallPlan, Plan, Provision, RegistryView, Stage
from sandbox.languages.npm_packages import install_npm_packages
from sandbox.languages.options import read_options
from sandbox.request import ExecutionRequest

__all__ = ["LANGUAGE", "NODE_HEAP_SHARE", "JavaScript"]

NODE_HEAP_SHARE = 0.75
"""What V8's old space may take of the memory limit; Node itself needs about 50 MiB beside it."""


class JavaScript:
    """Node.js. Its 7 to 11 threads are tasks of the kernel, so processes are not counted by tasks."""

    name = "javascript"
    aliases: tuple[str, ...] = ("js", "node", "nodejs", "ecmascript")
    title = "JavaScript"
    default_file = "main.js"
    suffixes: tuple[str, ...] = (".js", ".mjs", ".cjs")
    sample = (
        "const w = require('fs').readFileSync(0, 'utf8').trim();\n"
        "console.log([...w].reverse().join('').toUpperCase());\n"
    )
    host = HostPrograms(
        programs={"run": "node"}, version=("{run}", "--version"), fix="apt-get install nodejs"
    )
    registry = "npm"

    def plan(self, request: ExecutionRequest, given: Provision) -> Plan:
        """Plan one stage; a syntax error shows as Node itself shows it, with exit code 1."""
        read_options(request, {})
        entry = choose_entry(
            request, suffixes=self.suffixes, usual=("main.js", "index.js", "main.mjs", "index.mjs")
        )
        heap = f"--max-old-space-size={heap_mib(given.bounds.run, share=NODE_HEAP_SHARE)}"
        argv = (given.runtime.programs["run"], heap, inside(entry.path), *request.args)
        return Plan(stages=(Stage(name="run", argv=argv),))

    def install(
        self, request: ExecutionRequest, given: Provision, registries: Sequence[RegistryView]
    ) -> InstallPlan:
        """Plan the installation of packages from npm."""
        return install_npm_packages(request, given, registries)


LANGUAGE = JavaScript()
