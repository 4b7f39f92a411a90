"""In each language a program that says that it is up and then waits."""

__all__ = ["SLEEPERS"]

SLEEPERS = {
    "python": "import time\nprint('up', flush=True)\ntime.sleep(250)\n",
    "javascript": "console.log('up');\nsetTimeout(() => {}, 250000);\n",
    "typescript": "console.log('up');\nsetTimeout(() => {}, 250000);\n",
    "java": "class Main {\n  public static void main(String[] a) throws Exception {\n"
    '    System.out.println("up");\n    Thread.sleep(250000);\n  }\n}\n',
    "go": 'package main\n\nimport (\n\t"fmt"\n\t"time"\n)\n\n'
    'func main() {\n\tfmt.Println("up")\n\ttime.Sleep(250 * time.Second)\n}\n',
    "cpp": "#include <iostream>\n#include <unistd.h>\n"
    'int main() {\n  std::cout << "up" << std::endl;\n  sleep(250);\n}\n',
    "php": '<?php\necho "up\\n";\nsleep(250);\n',
    "swift": 'import Foundation\nprint("up")\nfflush(stdout)\nsleep(250)\n',
}
