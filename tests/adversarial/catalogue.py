"""The catalogue of what hostile programs and requests try: each line has at least one row in the table."""

__all__ = ["LINES"]

LINES = (
    # depletion
    "fork bomb", "thread bomb", "vfork storm", "zombie flood", "ten busy processes",
    "CPU hidden in short-lived children", "sleeping without CPU", "heap bomb", "tmpfs and /dev/shm bomb",
    "memfd", "pipes and socket buffers", "huge sparse file", "inode flood", "thousand-deep folders",
    "output flood", "endless output without newline", "NUL bytes and invalid UTF-8", "core dumps",
    "open files", "what the kernel counts for the whole machine",
    # processes and signals
    "orphan daemon", "orphan that holds stdout open", "stop-self", "kill(-1)", "signals to the parent",
    "ignored SIGTERM", "init of the sandbox",
    # files and their collection
    "symlink as output", "hard link as output", "FIFO as output", "device as output", "socket as output",
    "symlink swap during collection", "names with newlines", "folders closed to the collector",
    # the host's files and settings
    "/proc/self/mem", "/proc/1/environ", "/proc/sys writes", "core_pattern", "the machine in proc",
    "cgroup writes", "/dev scanning", "environment leaks", "host files", "writing to the tree",
    "inherited descriptors",
    # identity
    "identity", "setuid bits", "capabilities", "raising a bound",
    # the kernel's surface
    "mknod", "chroot tricks", "mounts", "nested user namespaces", "raw clone(CLONE_NEWUSER)", "clone3",
    "x32 and i386 system calls", "memfd_create + exec", "io_uring", "bpf", "perf_event_open", "userfaultfd",
    "keyctl and add_key", "ptrace", "clock changes", "terminals", "modules and reboot",
    "memory that is writable and executable", "memory beside the memory group", "files by handle",
    # between runs
    "System V and POSIX IPC between runs", "keyrings between runs", "abstract Unix sockets",
    "file locks on shared inodes", "files between runs", "processes between runs",
    # the network
    "AF_VSOCK", "AF_NETLINK", "AF_PACKET", "raw sockets", "other families", "DNS", "cloud metadata address",
    "loopback",
    # what an operator adds
    "misuse of a gateway", "misuse of an egress policy", "folders of the operator",
    # compilers
    "template recursion", '#include "/dev/zero"', '#include "/etc/shadow"', "huge error output",
    "constant-folding blow-up", "options of a compiler",
    # requests and packages
    "dependency names that are paths, URLs or options", "NaN and giant numbers in requests",
    "hostile package install scripts", "zip bombs in packages", "packages that leave their folder",
    "packages that cannot be had", "hostile code in packages", "packages of others", "registry of a run",
    "paths of a request", "sizes of a request", "variables of a request", "texts that are slow to read",
)  # fmt: skip
