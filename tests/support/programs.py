"""Small programs in each language, for tests: what each does is said above it."""

__all__ = ["BROKEN", "ECHO", "EXITS_7", "MANY_FILES", "THROWS"]

# Prints arguments, the variable NAME and the first line of standard input, joined by |.
ECHO = {
    "python": "import os, sys\nprint('|'.join([*sys.argv[1:], os.environ['NAME'], input()]))\n",
    "javascript": "const l = require('fs').readFileSync(0, 'utf8').trim();\n"
    "console.log([...process.argv.slice(2), process.env.NAME, l].join('|'));\n",
    "typescript": "import * as fs from 'fs';\nconst l: string = fs.readFileSync(0, 'utf8').trim();\n"
    "console.log([...process.argv.slice(2), process.env.NAME, l].join('|'));\n",
    "java": "import java.util.*;\nclass Main {\n  public static void main(String[] a) {\n"
    '    var all = new ArrayList<String>(List.of(a));\n    all.add(System.getenv("NAME"));\n'
    "    all.add(new Scanner(System.in).nextLine());\n"
    '    System.out.println(String.join("|", all));\n  }\n}\n',
    "go": 'package main\n\nimport (\n\t"bufio"\n\t"fmt"\n\t"os"\n\t"strings"\n)\n\nfunc main() {\n'
    "\ts := bufio.NewScanner(os.Stdin)\n\ts.Scan()\n"
    '\tfmt.Println(strings.Join(append(os.Args[1:], os.Getenv("NAME"), s.Text()), "|"))\n}\n',
    "cpp": "#include <cstdlib>\n#include <iostream>\n#include <string>\nint main(int n, char **a) {\n"
    "  for (int i = 1; i < n; i++) std::cout << a[i] << '|';\n"
    "  std::string l;\n  std::getline(std::cin, l);\n"
    "  std::cout << std::getenv(\"NAME\") << '|' << l << std::endl;\n}\n",
    "php": "<?php\n"
    "echo implode('|', [...array_slice($argv, 1), getenv('NAME'), trim(fgets(STDIN))]), PHP_EOL;\n",
    "swift": "import Foundation\nvar all = Array(CommandLine.arguments.dropFirst())\n"
    'all.append(ProcessInfo.processInfo.environment["NAME"]!)\nall.append(readLine()!)\n'
    'print(all.joined(separator: "|"))\n',
}

# Prints "before" and exits with 7.
EXITS_7 = {
    "python": "import sys\nprint('before')\nsys.exit(7)\n",
    "javascript": "console.log('before');\nprocess.exit(7);\n",
    "typescript": "console.log('before');\nprocess.exit(7);\n",
    "java": 'class Main {\n  public static void main(String[] a) {\n    System.out.println("before");\n'
    "    System.exit(7);\n  }\n}\n",
    "go": 'package main\n\nimport (\n\t"fmt"\n\t"os"\n)\n\n'
    'func main() {\n\tfmt.Println("before")\n\tos.Exit(7)\n}\n',
    "cpp": '#include <iostream>\nint main() {\n  std::cout << "before" << std::endl;\n  return 7;\n}\n',
    "php": '<?php\necho "before\\n";\nexit(7);\n',
    "swift": 'import Foundation\nprint("before")\nexit(7)\n',
}

# Fails with an error that nobody catches; its message holds NONCE.
THROWS = {
    "python": "raise ValueError('NONCE')\n",
    "javascript": "throw new Error('NONCE');\n",
    "typescript": "throw new Error('NONCE');\n",
    "java": "class Main {\n"
    '  public static void main(String[] a) { throw new RuntimeException("NONCE"); }\n}\n',
    "go": 'package main\n\nfunc main() { panic("NONCE") }\n',
    "cpp": '#include <stdexcept>\nint main() { throw std::runtime_error("NONCE"); }\n',
    "php": "<?php\nthrow new Exception('NONCE');\n",
    "swift": 'fatalError("NONCE")\n',
}

# Does not compile: the error is in line 3.
BROKEN = {
    "typescript": "const a: number = 1;\n\nconst b: number = 'text';\n",
    "java": 'class Main {\n  public static void main(String[] a) {\n    int x = "text";\n  }\n}\n',
    "go": 'package main\n\nvar x int = "text"\n\nfunc main() {}\n',
    "cpp": "int main() {\n\n  return undeclared;\n}\n",
    "swift": 'let a = 1\n\nlet b: Int = "text"\n',
}

# Prints "part NONCE"; files by path, and the entry point.
MANY_FILES: dict[str, tuple[dict[str, str], str]] = {
    "python": (
        {
            "main.py": "from lib.part import text\nprint(text())\n",
            "lib/part.py": "def text(): return 'part NONCE'\n",
        },
        "",
    ),
    "javascript": (
        {
            "main.js": "console.log(require('./lib/part').text());\n",
            "lib/part.js": "exports.text = () => 'part NONCE';\n",
        },
        "",
    ),
    "typescript": (
        {
            "main.ts": "import { text } from './lib/part';\nconsole.log(text());\n",
            "lib/part.ts": "export function text(): string { return 'part NONCE'; }\n",
        },
        "",
    ),
    "java": (
        {
            "app/Start.java": "package app;\nimport lib.Part;\npublic class Start {\n"
            "  public static void main(String[] a) { System.out.println(Part.text()); }\n}\n",
            "lib/Part.java": "package lib;\n"
            'public class Part { public static String text() { return "part NONCE"; } }\n',
        },
        "app/Start.java",
    ),
    "go": (
        {
            "go.mod": "module example.test/program\n\ngo 1.24\n",
            "main.go": 'package main\n\nimport (\n\t"fmt"\n\n\t"example.test/program/lib"\n)\n\n'
            "func main() { fmt.Println(lib.Text()) }\n",
            "lib/part.go": 'package lib\n\nfunc Text() string { return "part NONCE" }\n',
        },
        "main.go",
    ),
    "cpp": (
        {
            "main.cpp": '#include <iostream>\n#include "lib/part.h"\n'
            "int main() { std::cout << text() << std::endl; }\n",
            "lib/part.h": "#pragma once\nconst char *text();\n",
            "lib/part.cpp": '#include "part.h"\nconst char *text() { return "part NONCE"; }\n',
        },
        "",
    ),
    "php": (
        {
            "main.php": "<?php\nrequire __DIR__ . '/lib/part.php';\necho text(), PHP_EOL;\n",
            "lib/part.php": "<?php\nfunction text() { return 'part NONCE'; }\n",
        },
        "",
    ),
    "swift": (
        {"app.swift": "print(text())\n", "lib/part.swift": 'func text() -> String { "part NONCE" }\n'},
        "app.swift",
    ),
}
