"""Attacks that look for the host: its files, its devices, its settings, its secrets."""

# ruff: noqa: E501 - an attack is one line, so that the table can be read as one
# fmt: off

import re

from sandbox.result import ExecutionStatus as S
from tests.adversarial.attack import Attack, Ending, Without, calls

__all__ = ["ROWS"]

UNMASKED = "proc is shown as the kernel shows it to a user without rights"

ROWS = [
    Attack(name="names of the root", line="host files", wall="a root of its own", code="import os; print(sorted(set(os.listdir('/')) - {'bin','sbin','lib','lib32','lib64','libx32','usr','etc','proc','dev','tmp','work'}))",
        ends=Ending(stdout=b"[]\n")),
    Attack(name="host folders", line="host files", wall="a root of its own", code="import os; print([p for p in ('/root','/home','/sys','/var','/run','/boot','/etc/shadow','/etc/ssh','/etc/machine-id','/var/run/dstack.sock','/var/run/docker.sock','/sys/kernel/config') if os.path.exists(p)])",
        ends=Ending(stdout=b"[]\n")),
    Attack(name="passwords of the host", line="host files", wall="files of the sandbox's own stand there", code=calls("attempt(open, '/etc/shadow'); print('root:x:0:0' in open('/etc/passwd').read(), len(open('/etc/passwd').readlines()) < 4)"),
        ends=Ending(stdout=b"ENOENT\nTrue True\n")),
    Attack(name="climbing out by dots", line="host files", wall="a root of its own", code=calls("attempt(open, '/work/' + '../' * 40 + 'etc/shadow'); attempt(os.stat, '/proc/self/root/root'); attempt(os.stat, '/proc/self/cwd/../../root')"),
        ends=Ending(stdout=b"ENOENT\n" * 3)),
    Attack(name="mounts of the host", line="host files", wall="a mount name space of its own", code="print([l.split()[4] for l in open('/proc/self/mountinfo') if l.split()[4].startswith(('/sys','/run','/var','/home','/root','/mnt','/boot'))])",
        ends=Ending(stdout=b"[]\n")),
    Attack(name="own memory through proc", line="/proc/self/mem", wall="it is the program's own; Landlock closes it for writing, where the kernel has it", code="import ctypes\nb=ctypes.create_string_buffer(b'old')\ntry: f=open('/proc/self/mem','r+b',0); f.seek(ctypes.addressof(b)); f.write(b'new')\nexcept OSError: pass\nprint(b.value)",
        ends=Ending(stdout=re.compile(rb"b'(new|old)'\n"))),
    Attack(name="memory of a file that is read-only", line="/proc/self/mem", wall="a private copy is written, never the file",
        code="import mmap,ctypes\nf=open('/usr/bin/id','rb'); m=mmap.mmap(f.fileno(),4096,prot=mmap.PROT_READ,flags=mmap.MAP_PRIVATE)\n"
        "line=[l for l in open('/proc/self/maps') if l.endswith('/usr/bin/id\\n')][0]\n"
        "try: w=open('/proc/self/mem','r+b',0); w.seek(int(line.split('-')[0],16)); w.write(b'EVIL')\nexcept OSError: pass\nprint(open('/usr/bin/id','rb').read(4))",
        ends=Ending(stdout=b"b'\\x7fELF'\n")),
    Attack(name="memory of another process of one's own", line="/proc/self/mem", wall="allowed: all of them are the program's own",
        code="import os,signal,time\np=os.fork()\nif p==0: time.sleep(9)\nprint(os.path.exists(f'/proc/{p}/mem')); os.kill(p,9)", ends=Ending(stdout=b"True\n")),
    Attack(name="environment of init", line="/proc/1/environ", wall="hidepid, an init with a user of its own, an empty environment", code=calls("attempt(open, '/proc/1/environ'); attempt(os.listdir, '/proc/1/fd'); attempt(os.readlink, '/proc/1/exe')"),
        ends=Ending(stdout=b"ENOENT\n" * 3), elsewhere={"bubblewrap": Ending(stdout=re.compile(rb"((ok|EACCES|EPERM)\n){3}"), why="init has the program's user; its environment is empty")},
        without=Without(walls=("hidden processes",), stdout=re.compile(rb"(ok|EACCES)\nEACCES\nEACCES\n"))),
    Attack(name="environment of the service", line="/proc/1/environ", wall="the process name space", code=calls("import sys\nattempt(open, f'/proc/{sys.argv[1]}/environ'); attempt(os.stat, f'/proc/{sys.argv[1]}')"), args=["{pid}"],
        ends=Ending(stdout=b"ENOENT\nENOENT\n"), without=Without(walls=("pid namespace",), stdout=re.compile(rb"EACCES\nok\n"))),
    Attack(name="kernel settings", line="/proc/sys writes", wall="/proc/sys is read-only", code=calls("for n in ('vm/overcommit_memory','kernel/hostname','kernel/randomize_va_space','fs/file-max','net/ipv4/ip_forward'):\n  attempt(open, f'/proc/sys/{n}', 'w')"),
        ends=Ending(stdout=re.compile(rb"(EROFS\n|EACCES\n|ENOENT\n){5}"))),
    Attack(name="core pattern", line="core_pattern", wall="/proc/sys is read-only", code=calls("attempt(lambda: open('/proc/sys/kernel/core_pattern','w').write('|/work/main.py'))"), ends=Ending(stdout=re.compile(rb"(EROFS|EACCES)\n"))),
    Attack(name="program for unknown files", line="core_pattern", wall="/proc/sys is read-only", code=calls("attempt(lambda: open('/proc/sys/fs/binfmt_misc/register','w').write(':x:M::evil::/work/x:'))\nattempt(lambda: open('/proc/sys/kernel/modprobe','w').write('/work/x'))"),
        ends=Ending(stdout=re.compile(rb"((EROFS|EACCES|ENOENT)\n){2}"))),
    Attack(name="sysrq", line="/proc/sys writes", wall="masked", code=calls("attempt(lambda: os.write(os.open('/proc/sysrq-trigger',1), b'h'))"), ends=Ending(stdout=re.compile(rb"(EACCES|EROFS|ENOENT)\n"))),
    Attack(name="the machine in proc", line="the machine in proc", wall="masks over proc", code="n=0\nfor f in ('cmdline','key-users','modules','swaps','consoles','interrupts','iomem'):\n  try: n += bool(open(f'/proc/{f}','rb').read(1))\n  except OSError: pass\nprint(n)",
        ends=Ending(stdout=b"0\n"), elsewhere={"bubblewrap": Ending(stdout=re.compile(rb"[1-9]\n"), why=UNMASKED)},
        without=Without(walls=("proc masks",), stdout=re.compile(rb"[3-9]\n"))),
    Attack(name="folders of drivers in proc", line="the machine in proc", wall="masks over proc", code="import os\nprint([d for d in ('acpi','bus','driver','fs','irq','pressure','tty','scsi') if os.path.isdir(f'/proc/{d}') and os.listdir(f'/proc/{d}')])",
        ends=Ending(stdout=b"[]\n"), elsewhere={"bubblewrap": Ending(stdout=re.compile(rb"\[.*\]\n"), why=UNMASKED)},
        without=Without(walls=("proc masks",), stdout=re.compile(rb"\['.*'\]\n"))),
    Attack(name="kernel memory in proc", line="the machine in proc", wall="no right, and masks over proc", code="n=0\nfor f in ('kcore','kmsg','kallsyms','kpageflags','vmallocinfo','slabinfo'):\n  try: n += any(c not in b' 0' for c in open(f'/proc/{f}','rb').read(16))\n  except OSError: pass\nprint(n)",
        ends=Ending(stdout=b"0\n"), elsewhere={"bubblewrap": Ending(stdout=b"0\n")}),
    Attack(name="keys of the machine", line="the machine in proc", wall="masks over proc", code="print(len(open('/proc/keys').read()))", ends=Ending(stdout=b"0\n"),
        elsewhere={"bubblewrap": Ending(stdout=re.compile(rb"\d+\n"), why=UNMASKED)}),
    Attack(name="own control group", line="cgroup writes", wall="a cgroup name space", code="print({l.strip().split(':',2)[2] for l in open('/proc/self/cgroup')} == {'/'})", ends=Ending(stdout=b"True\n"),
        without=Without(walls=("cgroup namespace",), stdout=b"False\n")),
    Attack(name="control group file system", line="cgroup writes", wall="it is not mounted", code="import os; print(os.path.exists('/sys/fs/cgroup'), any(l.split()[2].startswith('cgroup') for l in open('/proc/mounts')))", ends=Ending(stdout=b"False False\n")),
    Attack(name="mounting control groups", line="cgroup writes", wall="the seccomp filter, no capability", code=calls("call(165, b'none', b'/tmp', b'cgroup2', 0, 0); call(165, b'none', b'/tmp', b'cgroup', 0, b'memory')"), ends=Ending(stdout=b"EPERM\nEPERM\n")),
    Attack(name="scanning /dev", line="/dev scanning", wall="a /dev of its own", code="import os; print(sorted(os.listdir('/dev')))",
        ends=Ending(stdout=b"['fd', 'full', 'null', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'urandom', 'zero']\n"),
        elsewhere={"bubblewrap": Ending(stdout=re.compile(rb"\[('console', )?'core', 'fd', 'full', 'null', 'ptmx', 'pts', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'tty', 'urandom', 'zero'\]\n"), why="bubblewrap's own /dev has a pts of its own")}),
    Attack(name="devices of the machine", line="/dev scanning", wall="a /dev of its own", code="import os; print([p for p in ('tdx_guest','kmsg','mem','kvm','vda','vsock','fuse','loop0','loop-control','net/tun','mapper','hugepages','mqueue','sgx_enclave','tpm0') if os.path.exists('/dev/'+p)])", ends=Ending(stdout=b"[]\n")),
    Attack(name="terminal of the service", line="/dev scanning", wall="a session without a terminal", code=calls("attempt(open, '/dev/tty', 'w')"), ends=Ending(stdout=re.compile(rb"(ENOENT|ENXIO|EROFS)\n"))),
    Attack(name="writing to /dev", line="/dev scanning", wall="/dev is read-only; what devices do is done nowhere", code=calls("attempt(open, '/dev/x', 'w'); attempt(os.unlink, '/dev/null'); attempt(os.chmod, '/dev/null', 0); attempt(os.rename, '/dev/zero', '/dev/null')"),
        ends=Ending(stdout=re.compile(rb"((EROFS|EPERM|EACCES|EBUSY)\n){4}"))),
    Attack(name="environment", line="environment leaks", wall="the whole environment is named in the order", code="import os; print(sorted(os.environ))", ends=Ending(stdout=b"['HOME', 'LANG', 'PATH', 'PYTHONDONTWRITEBYTECODE', 'TMPDIR']\n"),
        elsewhere={"bubblewrap": Ending(stdout=b"['HOME', 'LANG', 'PATH', 'PWD', 'PYTHONDONTWRITEBYTECODE', 'TMPDIR']\n", why="bubblewrap sets PWD, to /work")}),
    Attack(name="strings of the start in one's own memory", line="environment leaks", wall="the program is executed afresh", code="print([w for w in (b'launcher', b'BLUEPRINT', b'SECRET') if w in open('/proc/self/environ','rb').read() + open('/proc/self/cmdline','rb').read()])", ends=Ending(stdout=b"[]\n")),
    Attack(name="writing to the tree", line="writing to the tree", wall="the root is read-only", code=calls("for p in ('/x','/usr/x','/etc/x','/bin/x','/proc/x'): attempt(open, p, 'w')"), ends=Ending(stdout=re.compile(rb"(EROFS\n){4}(ENOENT|EROFS|EACCES)\n"))),
    Attack(name="changing the tree", line="writing to the tree", wall="the root is read-only", code=calls("attempt(os.unlink,'/usr/bin/id'); attempt(os.rename,'/usr/bin/id','/usr/bin/di'); attempt(os.chmod,'/usr/bin/id',0o777); attempt(os.utime,'/usr/bin/id'); attempt(os.symlink,'/work','/usr/w'); attempt(os.setxattr,'/usr/bin/id','user.x',b'x')"),
        ends=Ending(stdout=b"EROFS\n" * 6)),
    Attack(name="open descriptors", line="inherited descriptors", wall="all but three are closed", code="import os\nprint([f for f in range(3, 1000) if os.path.exists(f'/proc/self/fd/{f}')])", ends=Ending(stdout=b"[]\n"),
        without=Without(walls=("closed descriptors",), stdout=re.compile(rb"\[\d.*\]\n"))),
    Attack(name="host name", line="identity", wall="a UTS name space", code="import socket; print(socket.gethostname() == 'sandbox')", ends=Ending(stdout=b"True\n"), without=Without(walls=("UTS namespace",), stdout=b"False\n")),
    Attack(name="the kernel's version", line="the machine in proc", wall="known and kept: everybody may know it", code="import os; print(os.uname().release in open('/proc/version').read())", ends=Ending(stdout=b"True\n")),
    Attack(name="working folder of the service", line="host files", wall="a root of its own", code="import os,sys; print(os.getcwd(), os.path.exists('/work/../work/main.py'), sys.path[0])", ends=Ending(stdout=b"/work True /work\n")),
    Attack(name="program that replaces itself", line="/proc/self/mem", wall="the interpreter is read-only, of another user", code=calls("import sys\nattempt(open, os.path.realpath('/proc/self/exe'), 'r+b'); attempt(open, '/proc/self/exe', 'r+b')"), ends=Ending(status=S.SUCCESS, stdout=re.compile(rb"((EROFS|ETXTBSY|EACCES)\n){2}"))),
]
