"""Attacks that want to be somebody else: identity, capabilities, set-user-id programs, bounds."""

# ruff: noqa: E501 - an attack is one line, so that the table can be read as one
# fmt: off

import re

from tests.adversarial.attack import Attack, Ending, Without, calls

__all__ = ["ROWS"]

# Code of the program's own in init, whose memory it may write, would take what init may take.
UNBOUND = "try: print([l for l in open('/proc/1/limits') if l.startswith(('Max cpu', 'Max file size', 'Max data', 'Max stack', 'Max core', 'Max msgq', 'Max locked')) and 'unlimited' in l])\nexcept OSError as e: print(type(e).__name__)"

ROWS = [
    Attack(name="who am I", line="identity", wall="one user, one group, no others", code="import os; print(os.getresuid(), os.getresgid(), os.getgroups())",
        ends=Ending(stdout=b"(1000, 1000, 1000) (1000, 1000, 1000) []\n"),
        elsewhere={"bubblewrap": Ending(stdout=re.compile(rb"\(1000, 1000, 1000\) \(1000, 1000, 1000\) \[(65534)?\]\n"))}),
    Attack(name="becoming root", line="identity", wall="one mapped user", code=calls("for f in (os.setuid, os.seteuid, os.setgid, os.setegid): attempt(f, 0)\nattempt(os.setgroups, [0])"),
        ends=Ending(stdout=re.compile(rb"((EINVAL|EPERM)\n){5}"))),
    Attack(name="becoming init", line="identity", wall="no capability", code=calls("attempt(os.setuid, 1); attempt(os.setgid, 1); attempt(os.setfsuid, 1) if hasattr(os,'setfsuid') else print('EPERM')"),
        ends=Ending(stdout=re.compile(rb"((EINVAL|EPERM)\n){3}")), without=Without(walls=("capabilities dropped",), stdout=re.compile(rb"ok\n.*", re.DOTALL))),
    Attack(name="giving a file away", line="identity", wall="no capability", code=calls("open('f','w'); attempt(os.chown,'f',0,0); attempt(os.chown,'f',1,1)"), ends=Ending(stdout=re.compile(rb"((EINVAL|EPERM)\n){2}")),
        without=Without(walls=("capabilities dropped",), stdout=b"EINVAL\nok\n")),
    Attack(name="mapping more users", line="identity", wall="the map is written once, from outside", code=calls("for n in ('uid_map','gid_map','setgroups'): attempt(lambda: os.write(os.open(f'/proc/self/{n}',1), b'0 0 1' if n != 'setgroups' else b'allow'))"),
        ends=Ending(stdout=re.compile(rb"((EPERM|EACCES)\n){3}"))),
    Attack(name="set-user-id programs", line="setuid bits", wall="no_new_privs, nosuid, one mapped user", code="import subprocess; print(subprocess.run(['/usr/bin/su','-c','id'],input=b'',capture_output=True).stdout)", ends=Ending(stdout=b"b''\n")),
    Attack(name="a set-user-id program of one's own", line="setuid bits", wall="no_new_privs, nosuid", code="import os,shutil,subprocess\nshutil.copy('/usr/bin/id','i'); os.chmod('i',0o6755); print(subprocess.run(['./i','-u'],capture_output=True,text=True).stdout.strip(), bool(os.statvfs('.').f_flag & os.ST_NOSUID))",
        ends=Ending(stdout=b"1000 True\n")),
    Attack(name="capabilities in a file", line="setuid bits", wall="no capability, nosuid", code=calls("open('f','w'); attempt(os.setxattr,'f','security.capability',bytes.fromhex('0100000202000000000000000000000000000000'))\nattempt(os.setxattr,'f','trusted.x',b'1')"), ends=Ending(stdout=b"EPERM\nEPERM\n")),
    Attack(name="capabilities", line="capabilities", wall="none in any set", code="print([l.split()[1].strip('0') for l in open('/proc/self/status') if l.startswith('Cap')])", ends=Ending(stdout=b"['', '', '', '', '']\n"),
        without=Without(walls=("capabilities dropped",), stdout=re.compile(rb"\['1ff.*\]\n"))),
    Attack(name="capset of everything", line="capabilities", wall="none in the permitted set", code=calls("call(126, bytes.fromhex('2205082000000000'), b'\\xff' * 24)"), ends=Ending(stdout=b"EPERM\n")),
    Attack(name="ambient capabilities and secure bits", line="capabilities", wall="the secure bits are locked", code=calls("call(157, 47, 2, 21, 0, 0); call(157, 28, 0, 0, 0, 0)\nprint(open('/proc/self/status').read().split('NoNewPrivs:')[1].split()[0])"),
        ends=Ending(stdout=b"EPERM\nEPERM\n1\n")),
    Attack(name="raising a bound", line="raising a bound", wall="soft and hard bounds are equal", code="import resource as r\nfor n in (r.RLIMIT_NOFILE, r.RLIMIT_FSIZE, r.RLIMIT_CORE):\n  try: r.setrlimit(n, (r.RLIM_INFINITY, r.RLIM_INFINITY)); print('ok')\n  except (ValueError, OSError): print('no')", ends=Ending(stdout=b"no\n" * 3)),
    Attack(name="raising a bound in proc", line="raising a bound", wall="soft and hard bounds are equal", code=calls("attempt(lambda: os.write(os.open('/proc/self/limits',1), b'x'))"), ends=Ending(stdout=re.compile(rb"(EACCES|EINVAL|EPERM)\n"))),
    Attack(name="bounds of the parent", line="raising a bound", wall="init has a user number of its own", code=calls("import resource as r\nattempt(r.prlimit, 1, r.RLIMIT_FSIZE, (r.RLIM_INFINITY, r.RLIM_INFINITY))"), ends=Ending(stdout=b"EPERM\n")),
    Attack(name="init without bounds", line="raising a bound", wall="init has a user number of its own, or the program's bounds", code=UNBOUND, ends=Ending(stdout=b"FileNotFoundError\n"),
        elsewhere={"bubblewrap": Ending(stdout=b"[]\n", why="bubblewrap's init has the program's own user, and its bounds too")}),
    Attack(name="variables before the limits", line="raising a bound", wall="the program's variables are set last, for it alone", code="", env_vars={"LD_SHOW_AUXV": "1"}, ends=Ending(stdout=re.compile(rb"(?!.*AT_EXECFN: +\S+/(prlimit|env|bwrap)\n).*AT_EXECFN: +\S+python.*", re.DOTALL))),
]
