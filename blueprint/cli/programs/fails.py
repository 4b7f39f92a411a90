"""Fails with an exception: the answer must hold the traceback and exit code 1."""

items = ["one", "two"]
print("about to fail")
print(items[2])
