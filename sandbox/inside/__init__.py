"""What runs between the service and the program: the launcher, the root it builds, and the init of a stage.

Invariant: standard library and `sandbox.kernel` only; started with an empty environment and no site-packages.
"""
