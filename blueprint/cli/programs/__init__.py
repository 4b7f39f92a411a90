"""The demonstration's programs: one per language, each transforming a nonce; and three that must fail."""
