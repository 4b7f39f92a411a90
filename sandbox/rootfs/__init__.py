"""Builds and finds the language trees.

Invariant: a `LanguageTree` that comes from here is complete and has answered in each of its languages, or is
the host itself.
"""

from sandbox.rootfs.builder import build_tree
from sandbox.rootfs.host import HostTree, host_tree, survey_host
from sandbox.rootfs.progress import BuildStep, Progress
from sandbox.rootfs.recipe import load_recipe
from sandbox.rootfs.trees import Manifest, find_tree, list_trees

__all__ = [
    "BuildStep",
    "HostTree",
    "Manifest",
    "Progress",
    "build_tree",
    "find_tree",
    "host_tree",
    "list_trees",
    "load_recipe",
    "survey_host",
]
