"""The guard: a program of somebody else, beside which attacks run, with all that they could reach for.

Invariant: at its end it says whether anything of it was touched. What is not to be had inside (a key, a
port) it does without; where a wall is left out it has that too.
"""

__all__ = ["ABSTRACT_NAME", "GATEWAY_PORT", "GUARD", "INTACT", "IPC_KEY", "PORT", "SECRET"]

INTACT = "intact"
SECRET = "word-of-the-guard"
IPC_KEY = 0x5EC0BEEF
PORT = 47_613
GATEWAY_PORT = 3128
ABSTRACT_NAME = "service-under-attack"

GUARD = f"""
import ctypes, os, socket, sys, time
SECRET = b"{SECRET}"
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
def need(result, what):
    if result < 0: sys.exit(f"{{what}}: {{os.strerror(ctypes.get_errno())}}")
    return result
CREATE = 0o1000 | 0o666
memory = need(libc.shmget({IPC_KEY}, 4096, CREATE), "shmget")
view = libc.shmat(memory, None, 0)
ctypes.memmove(view, SECRET, len(SECRET))
semaphore = need(libc.semget({IPC_KEY}, 1, CREATE), "semget")
queue = need(libc.msgget({IPC_KEY}, CREATE), "msgget")
need(libc.msgsnd(queue, (8).to_bytes(8, "little") + SECRET, len(SECRET), 0), "msgsnd")
files = {{"/dev/shm/guard": SECRET, "/tmp/guard": SECRET, "/work/guard": SECRET}}
for path, content in files.items():
    with open(path, "wb") as file: file.write(content)
    os.chmod(path, 0o666)
posix = ctypes.c_char_p(b"/guard")
posix_queue = libc.mq_open(posix, os.O_CREAT | os.O_RDWR, 0o666, None)
key = libc.syscall(248, b"user", b"guard", SECRET, len(SECRET), -3)
listener = socket.socket(socket.AF_UNIX); listener.bind("\\0guard")
listener.listen(); listener.setblocking(False)
try:
    tcp = socket.socket(); tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind(("127.0.0.1", {PORT})); tcp.listen()
except OSError:
    tcp = None
before = (sorted(os.listdir("/tmp")), os.getcwd(), socket.gethostname(), os.getpriority(os.PRIO_PROCESS, 0))
open("/work/ready", "w").close()
while not os.path.exists("/work/stop"):
    time.sleep(0.05)
touched = []
if ctypes.string_at(view, len(SECRET)) != SECRET: touched.append("memory")
buffer = ctypes.create_string_buffer(100)
if libc.msgrcv(queue, buffer, 80, 0, 0o4000) != len(SECRET): touched.append("queue")
if libc.semctl(semaphore, 0, 12) != 0: touched.append("semaphore")
for path, content in files.items():
    if open(path, "rb").read() != content: touched.append(path)
try:
    listener.accept(); touched.append("socket")
except BlockingIOError:
    pass
after = (sorted(os.listdir("/tmp")), os.getcwd(), socket.gethostname(), os.getpriority(os.PRIO_PROCESS, 0))
if after != before: touched.append(f"{{before}} {{after}}")
for call, number in ((libc.shmctl, memory), (libc.msgctl, queue)): call(number, 0, None)
libc.semctl(semaphore, 0, 0)
if posix_queue >= 0: libc.mq_unlink(posix)
print(touched or "{INTACT}")
"""
