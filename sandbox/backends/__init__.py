"""The ways to isolate an execution, behind one interface."""
