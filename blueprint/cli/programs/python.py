"""Reads a nonce from stdin, prints it reversed and its FNV-1a hash. The other languages do the same."""

nonce = input().strip()
value = 2166136261
for byte in (nonce + "python").encode():
    value = (value ^ byte) * 16777619 % 2**32
print(nonce[::-1], f"{value:08x}")
