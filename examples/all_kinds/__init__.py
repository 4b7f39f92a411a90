"""A router outside the node's own packages, with a job for each of the twenty-three kinds of field."""
