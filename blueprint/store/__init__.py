"""The only writer of the node's durable state."""
