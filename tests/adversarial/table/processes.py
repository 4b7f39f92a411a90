"""Attacks by what stays behind, by signals, and on the init that stands between a program and its end."""

# ruff: noqa: E501 - an attack is one line, so that the table can be read as one
# fmt: off

import re

from sandbox.result import ExecutionStatus as S
from sandbox.result import LimitKind as L
from tests.adversarial.attack import Attack, Ending, Without, calls

__all__ = ["ROWS"]

OWN_USER = "bubblewrap's init has the program's own user, no more rights and none of its limits"

ROWS = [
    Attack(name="orphan daemon", line="orphan daemon", wall="init's death kills its process name space",
        code="import os,time\nif os.fork()==0:\n  os.setsid()\n  if os.fork()==0: time.sleep(3600)\n  os._exit(0)\nprint('left')",
        ends=Ending(stdout=b"left\n")),
    Attack(name="ten daemons that ignore every signal", line="orphan daemon", wall="init's death kills its process name space",
        code="import os,signal,time\nfor _ in range(4):\n  if os.fork()==0:\n    os.setsid()\n    for n in range(1,65):\n      try: signal.signal(n, signal.SIG_IGN)\n      except (OSError, ValueError): pass\n"
        "    os.closerange(0,9); time.sleep(3600)\nprint('left')",
        ends=Ending(stdout=b"left\n")),
    Attack(name="orphan that holds stdout open", line="orphan that holds stdout open", wall="the end is init's death, not the end of the stream",
        code="import os,time\nif os.fork()==0:\n  os.setsid(); time.sleep(3600)\nprint('left')", ends=Ending(stdout=b"left\n")),
    Attack(name="orphan that prints", line="orphan that holds stdout open", wall="the end is init's death, not the end of the stream",
        code="import os,time\nif os.fork()==0:\n  os.setsid()\n  while True: os.write(1,b'.'); time.sleep(0.01)\ntime.sleep(0.3); os._exit(0)",
        ends=Ending(stdout=re.compile(rb"\.+"))),
    Attack(name="daemon that survives a timeout", line="orphan daemon", wall="init's death kills its process name space",
        code="import os,time\nif os.fork()==0: os.setsid()\ntime.sleep(3600)", ends=Ending(status=S.TIMEOUT, hits=L.WALL_TIME)),
    Attack(name="process that names itself after init", line="orphan daemon", wall="processes are known by descriptor, not by name",
        code="import ctypes,os,time\nctypes.CDLL(None).prctl(15, b'systemd',0,0,0)\nif os.fork()==0:\n  os.setsid(); time.sleep(3600)\nprint('left')", ends=Ending(stdout=b"left\n")),
    Attack(name="stopping itself", line="stop-self", wall="the wall clock, and a kill that stops for nothing", code="import os,signal; os.kill(os.getpid(), signal.SIGSTOP)",
        ends=Ending(status=S.TIMEOUT, hits=L.WALL_TIME)),
    Attack(name="stopping the whole group", line="stop-self", wall="the wall clock, and a kill that stops for nothing",
        code="import os,signal\nfor _ in range(3): os.fork()\nos.kill(0, signal.SIGSTOP)", ends=Ending(status=S.TIMEOUT, hits=L.WALL_TIME)),
    Attack(name="waiting to be traced", line="stop-self", wall="the seccomp filter", code=calls("call(101, 0, 0, 0, 0)"),
        ends=Ending(stdout=b"EPERM\n"), without=Without(walls=("seccomp filter",), stdout=b"ok\n")),
    Attack(name="kill(-1)", line="kill(-1)", wall="the process name space: it reaches the program's own processes only",
        code="import os,signal\nif os.fork()==0:\n  os.kill(-1, signal.SIGKILL)\nos.wait(); print('x')",
        ends=Ending(status=S.SIGNALLED, stdout=b"")),
    Attack(name="signals to init", line="signals to the parent", wall="init has a user number of its own",
        code="import os\nfor n in range(1,65):\n  try: os.kill(1, n)\n  except OSError: pass\nprint('alive')",
        ends=Ending(stdout=b"alive\n")),
    Attack(name="signal to the group of the parent", line="signals to the parent", wall="a session of its own", code="import os; os.kill(0, 9)",
        ends=Ending(status=S.SIGNALLED)),
    Attack(name="signals to every number", line="signals to the parent", wall="the process name space",
        code="import os,signal\nn=0\nfor p in range(3, 40000):\n  if p == os.getpid(): continue\n  try: os.kill(p, 0); n+=1\n  except ProcessLookupError: pass\n  except PermissionError: n+=1\nprint(n)",
        ends=Ending(stdout=b"0\n"),
        without=Without(walls=("pid namespace",), stdout=re.compile(rb"[1-9]\d*\n"))),
    Attack(name="the service's own number", line="signals to the parent", wall="the process name space",
        code=calls("import sys\ntry: os.kill(int(sys.argv[1]), 0); print('there')\nexcept PermissionError: print('there')\nexcept ProcessLookupError: print('nobody')"),
        args=["{pid}"], ends=Ending(stdout=b"nobody\n"), without=Without(walls=("pid namespace",), stdout=b"there\n")),
    Attack(name="ignoring SIGTERM and all else", line="ignored SIGTERM", wall="SIGKILL to init",
        code="import signal,time\nfor n in range(1,65):\n  try: signal.signal(n, signal.SIG_IGN)\n  except (OSError, ValueError): pass\ntime.sleep(60)",
        ends=Ending(status=S.TIMEOUT, hits=L.WALL_TIME)),
    Attack(name="blocking every signal", line="ignored SIGTERM", wall="SIGKILL to init",
        code="import signal,time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1,65))\ntime.sleep(60)", ends=Ending(status=S.TIMEOUT, hits=L.WALL_TIME)),
    Attack(name="init in proc", line="init of the sandbox", wall="hidepid, and a user number of its own",
        code=calls("print([p for p in os.listdir('/proc') if p.isdigit()])\nfor n in ('environ','mem','maps','fd','root','exe','cwd','cmdline','task/1/cmdline','oom_score_adj'):\n  attempt(os.stat, f'/proc/1/{n}')"),
        ends=Ending(stdout=b"['2']\n" + b"ENOENT\n" * 10),
        elsewhere={"bubblewrap": Ending(stdout=re.compile(rb"\['1', '2'\]\n.*", re.DOTALL), why=OWN_USER)},
        without=Without(walls=("hidden processes",), stdout=re.compile(rb"\['1', '2'\]\n(ok\n)+(EACCES\n|EPERM\n|ok\n)*"))),
    Attack(name="bounds for init", line="init of the sandbox", wall="init has a user number of its own",
        code=calls("import resource as r\nfor n in (r.RLIMIT_NOFILE, r.RLIMIT_CORE): attempt(r.prlimit, 1, n, (5, 5))"),
        ends=Ending(stdout=b"EPERM\n" * 2), elsewhere={"bubblewrap": Ending(stdout=re.compile(rb"((ok|EPERM)\n){2}"), why=OWN_USER)},
        without=Without(walls=("init's own number",), stdout=re.compile(rb"((ok|EPERM)\n){2}"))),
    Attack(name="starving init", line="init of the sandbox", wall="init has a user number of its own",
        code=calls("attempt(os.sched_setscheduler, 1, os.SCHED_IDLE, os.sched_param(0))\nattempt(os.sched_setaffinity, 1, {0})\nattempt(os.setpriority, os.PRIO_PROCESS, 1, 19)"),
        ends=Ending(stdout=b"EPERM\n" * 3), elsewhere={"bubblewrap": Ending(stdout=b"ok\n" * 3, why=OWN_USER)},
        without=Without(walls=("init's own number",), stdout=b"ok\n" * 3)),
    Attack(name="OOM score", line="init of the sandbox", wall="a floor that was set as root",
        code=calls("print(open('/proc/self/oom_score_adj').read(), end='')\nattempt(lambda: os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-1'))"),
        ends=Ending(stdout=b"500\nEACCES\n"), elsewhere={"bubblewrap": Ending(stdout=b"0\nEACCES\n", why="without root there is no floor above the service's own score")},
        without=Without(walls=("OOM score",), stdout=b"0\nEACCES\n")),
    Attack(name="real-time scheduling", line="init of the sandbox", wall="no capability; RLIMIT_RTPRIO and RLIMIT_NICE are 0",
        code=calls("attempt(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))\nattempt(os.nice, -5)"), ends=Ending(stdout=b"EPERM\nEPERM\n")),
    Attack(name="CPU limit that was not reached", line="init of the sandbox", wall="what was used is counted, whatever the signal says",
        code="import os,signal\nsignal.signal(signal.SIGXCPU, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGXCPU)", ends=Ending(status=S.SIGNALLED, hits=L.NONE)),
    Attack(name="exit code of a signal", line="init of the sandbox", wall="wait status comes from init, not from a shell",
        code="raise SystemExit(137)", ends=Ending(status=S.NONZERO_EXIT),
        elsewhere={"bubblewrap": Ending(status=S.SIGNALLED, why="bubblewrap passes a signal on as 128 and its number")}),
    Attack(name="writing to init's report", line="init of the sandbox", wall="its descriptors are closed, and its proc folder is out of sight",
        code=calls("import glob\nn=0\nfor p in range(0, 1000):\n  try: os.write(p, b''); n+=1\n  except OSError: pass\nprint(n-2 <= 0)\nprint(glob.glob('/proc/1/fd/*'))"),
        ends=Ending(stdout=b"True\n[]\n"), elsewhere={"bubblewrap": Ending(stdout=re.compile(rb"True\n.*\n"), why=OWN_USER)}),
]
