"""How many sleeping sandboxes a machine holds."""
