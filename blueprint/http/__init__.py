"""What the node serves over HTTP on loopback."""
