"""The node's runtime: follows job calls on a chain, runs their handlers, answers each exactly once."""
