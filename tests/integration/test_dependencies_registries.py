"""Well-known packages from the registries that this host is configured for."""

from pathlib import Path

import pytest

from sandbox.egress.mirror import Mirror
from sandbox.egress.tools import registries_of_host
from sandbox.result import ExecutionStatus
from tests.support.installing import depending, installing

pytestmark = [pytest.mark.root, pytest.mark.tree, pytest.mark.registry]

PACKAGES = {
    "python": [("requests", ">=2.31,<3"), ("numpy", "")],
    "javascript": [("express", "^4.18")],
    "typescript": [("lodash", "^4"), ("@types/lodash", "^4")],
    "go": [("github.com/google/uuid", "v1.6.0"), ("golang.org/x/text", "v0.20.0")],
    "java": [("com.google.guava:guava", "[32.0,33.0)")],
}
PROGRAMS = {
    "python": "import numpy, requests\nprint(numpy.arange(4).sum(), requests.__version__[0])\n",
    "javascript": "const app = require('express')();\nconsole.log(typeof app.get);\n",
    "typescript": "import { chunk } from 'lodash';\nconst parts: number[][] = chunk([1, 2, 3], 2);\n"
    "console.log(parts.length);\n",
    "go": 'package main\n\nimport (\n\t"fmt"\n\n\t"github.com/google/uuid"\n\t'
    '"golang.org/x/text/language"\n)\n\n'
    "func main() { fmt.Println(uuid.Nil, language.German) }\n",
    "java": "import com.google.common.base.Joiner;\npublic class Main {\n"
    '  public static void main(String[] a) { System.out.println(Joiner.on("-").join("a", "b")); }\n}\n',
}
PRINTED = {
    "python": b"6 2\n",
    "javascript": b"function\n",
    "typescript": b"2\n",
    "go": b"00000000-0000-0000-0000-000000000000 de\n",
    "java": b"a-b\n",
}


@pytest.mark.parametrize("language", PACKAGES)
async def test_well_known_packages_are_installed_and_used(language: str, tmp_path: Path) -> None:
    """A package with dependencies of its own comes through the mirror and works without a network."""
    async with installing(tmp_path, mirror=Mirror([], of_host=registries_of_host)) as executor:
        result = await executor.execute(depending(language, PROGRAMS[language], *PACKAGES[language]))
    assert result.status == ExecutionStatus.SUCCESS, (result.error_message, result.stderr.data[-2000:])
    assert result.stdout.data == PRINTED[language]
    assert "network_none" in result.guarantees.enforced
    for name, _ in PACKAGES[language]:
        assert name in result.lock
