"""Language Executors: one file per language, found by name."""
