"""Asks for a gibibyte and writes to every page: the memory limit must end it."""

hoard = [bytearray(b"x") * (1024 * 1024) for _ in range(1024)]
print("got all of it, nothing stopped me:", len(hoard), "MiB")
