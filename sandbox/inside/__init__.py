"""What runs inside a sandbox, beside the user's program; standard library only."""
