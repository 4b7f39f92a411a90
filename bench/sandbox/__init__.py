"""What the sandbox adds to a program."""
