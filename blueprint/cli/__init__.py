"""The composition root: reads settings, builds the parts, starts the node."""
