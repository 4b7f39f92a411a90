"""Attacks on the collection of outputs: links, devices, names and swaps where an honest file is expected."""

# ruff: noqa: E501 - an attack is one line, so that the table can be read as one
# fmt: off

import re
from dataclasses import replace

from tests.adversarial.attack import Attack, Ending, Without, calls
from tests.support.sandboxes import SMALL

__all__ = ["ROWS"]

RULES = ("rules of collection",)
WALL = "outputs are read with openat2, beneath /work, never through a link, when no process is alive"

PLANT = """
import os, socket
os.mkdir('out'); os.chdir('out')
os.symlink('/etc/passwd', 'link'); os.symlink('/', 'root'); os.symlink('../../..', 'up')
os.mkfifo('fifo')
open('hard1','w').write('x'); os.link('hard1','hard2')
s = socket.socket(socket.AF_UNIX); s.bind('socket')
open('new\\nline','w').write('n'); open(b'bad\\xff','w').write('b')
os.mkdir('real'); open('real/file','w').write('ok')
"""

ROWS = [
    Attack(name="folder full of plants", line="symlink as output", wall=WALL, code=PLANT, outputs=["out", "out/link", "out/root/etc/passwd", "out/up/etc/passwd", "out/fifo", "out/hard1"],
        ends=Ending(files={"out/new\nline": b"n", "out/bad\udcff": b"b", "out/real/file": b"ok"})),
    Attack(name="symbolic link as output", line="symlink as output", wall=WALL, code="import os; os.symlink('/proc/version','out')", outputs=["out"], ends=Ending(files={}), without=Without(walls=RULES, found=b"Linux version")),
    Attack(name="symbolic link to a folder", line="symlink as output", wall=WALL, code="import os; os.symlink('/proc','out')", outputs=["out/version"], ends=Ending(files={}), without=Without(walls=RULES, found=b"Linux version")),
    Attack(name="link in the middle of a path", line="symlink as output", wall=WALL, code="import os; os.makedirs('a/b'); os.symlink('/','a/b/c')", outputs=["a/b/c/proc/version"], ends=Ending(files={}), without=Without(walls=RULES, found=b"Linux version")),
    Attack(name="link upwards", line="symlink as output", wall=WALL, code="import os; open('/tmp/t','w').write('of /tmp'); os.symlink('../tmp/t','out')", outputs=["out"], ends=Ending(files={}), without=Without(walls=RULES, found=b"of /tmp")),
    Attack(name="link to the collector's own files", line="symlink as output", wall=WALL, code="import os; os.symlink('/proc/self/status','out')", outputs=["out"], ends=Ending(files={}), without=Without(walls=RULES, found=b"VmRSS")),
    Attack(name="link to a link to itself", line="symlink as output", wall=WALL, code="import os; os.symlink('out','out')", outputs=["out"], ends=Ending(files={})),
    Attack(name="magic link", line="symlink as output", wall=WALL, code="import os; os.symlink('/proc/self/fd/0','out')", outputs=["out"], ends=Ending(files={})),
    Attack(name="hard link as output", line="hard link as output", wall="a file with a second name is left out", code="import os; open('a','w').write('x'); os.link('a','out')", outputs=["out"], ends=Ending(files={})),
    Attack(name="hard link to a file of the tree", line="hard link as output", wall="no link leaves its file system", code=calls("attempt(os.link,'/usr/bin/id','out'); attempt(os.link,'/etc/passwd','out')"), outputs=["out"], ends=Ending(stdout=re.compile(rb"((EXDEV|EACCES|EROFS)\n){2}"), files={})),
    Attack(name="FIFO as output", line="FIFO as output", wall="opened without waiting, and left out", code="import os; os.mkfifo('out')", outputs=["out"], ends=Ending(files={})),
    Attack(name="device as output", line="device as output", wall="mknod is not permitted; nodev", code=calls("attempt(os.mknod,'out',0o20600,0x103)\nopen('out','w').write('file')"), outputs=["out"], ends=Ending(stdout=re.compile(rb"(EPERM|EACCES)\n"), files={"out": b"file"})),
    Attack(name="link to a device", line="device as output", wall=WALL, code="import os; os.symlink('/dev/zero','out')", outputs=["out"], ends=Ending(files={})),
    Attack(name="socket as output", line="socket as output", wall="left out", code="import socket; s=socket.socket(socket.AF_UNIX); s.bind('out')", outputs=["out"], ends=Ending(files={})),
    Attack(name="daemon that swaps a file for a link", line="symlink swap during collection", wall="outputs are read after every process is dead, and never through a link",
        code="import os,time\nopen('keep','w').write('honest')\nif os.fork()==0:\n  os.setsid()\n  while True:\n    os.symlink('/proc/version','l'); os.rename('l','out'); open('r','w').write('honest'); os.rename('r','out')\ntime.sleep(0.2); os._exit(0)",
        outputs=["keep"], ends=Ending(files={"keep": b"honest"})),
    Attack(name="daemon that swaps a folder for a link", line="symlink swap during collection", wall="outputs are read after every process is dead, and never through a link",
        code="import os,time\nos.mkdir('d'); open('d/version','w').write('honest'); os.symlink('/proc','l')\nif os.fork()==0:\n  os.setsid()\n  while True:\n    os.rename('d','x'); os.rename('l','d'); os.rename('d','l'); os.rename('x','d')\ntime.sleep(0.2); os._exit(0)",
        outputs=["d/version"], ends=Ending(may_find={"d/version": b"honest"})),
    Attack(name="work folder that is swapped away", line="symlink swap during collection", wall="/work is a mount, and its folder is held by descriptor", code=calls("attempt(os.rename,'/work','/tmp/w'); attempt(os.rmdir,'/work')\nopen('/work/out','w').write('x')"), outputs=["out"], ends=Ending(files={"out": b"x"})),
    Attack(name="names with newlines and no UTF-8", line="names with newlines", wall="a name is bytes, and is never parsed", code="import os\nos.mkdir('out')\nfor n in (b'new\\nline', b'bad\\xff', b'\\x1b[2J', b'-rf', b'a;b', b' '): open(b'out/'+n,'w').write('n')", outputs=["out"],
        ends=Ending(files={f"out/{name}": b"n" for name in ("new\nline", "bad\udcff", "\x1b[2J", "-rf", "a;b", " ")})),
    Attack(name="longest names", line="names with newlines", wall="a path is walked part by part", code="import os\nn='n'*255; os.makedirs(f'out/{n}/{n}'); open(f'out/{n}/{n}/f','w').write('deep')", outputs=["out"], ends=Ending(files={f"out/{'n' * 255}/{'n' * 255}/f": b"deep"})),
    Attack(name="file that may not be read", line="folders closed to the collector", wall="the service reads by its own right", code="import os; open('out','w').write('x'); os.chmod('out',0)", outputs=["out"], ends=Ending(files={"out": b"x"}),
        elsewhere={"bubblewrap": Ending(files={}, why="without root the service has no other right than the program")}),
    Attack(name="work folder that is closed", line="folders closed to the collector", wall="the service reads by its own right", code="import os; open('out','w').write('x'); os.chmod('/work',0)", outputs=["out"], ends=Ending(files={"out": b"x"}),
        elsewhere={"bubblewrap": Ending(files={}, message="not collected", why="without root the service has no other right than the program")}),
    Attack(name="thousands of names", line="folders closed to the collector", wall="the collector's bounds on count and time", code="import os\nos.mkdir('out')\nfor n in range(1500): open(f'out/{n}','w').write('x')", outputs=["out"], limits=replace(SMALL, inodes=3000), ends=Ending(files={}, message="more than 1000 output files")),
    Attack(name="thousands of links", line="folders closed to the collector", wall="every entry is timed", code="import os\nos.mkdir('out')\nfor n in range(2500): os.symlink('/dev/zero',f'out/{n}')", outputs=["out"], limits=replace(SMALL, inodes=3000), ends=Ending(files={})),
]
