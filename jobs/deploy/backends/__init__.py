"""Places to deploy to: a cloud of CVMs, and a Docker engine on this machine."""
