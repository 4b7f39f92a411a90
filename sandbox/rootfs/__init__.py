"""Builds and finds the language trees.

Invariant: a `LanguageTree` that comes from here is complete and has answered in each of its languages, or is
the host itself.
"""

from sandbox.rootfs.builder import build_tree, build_trees
from sandbox.rootfs.host import HostTree, host_tree, survey_host
from sandbox.rootfs.progress import BuildStep, Progress
from sandbox.rootfs.recipe import load_recipes
from sandbox.rootfs.trees import Manifest, find_tree, find_trees, is_current, list_trees

__all__ = [
    "BuildStep",
    "HostTree",
    "Manifest",
    "Progress",
    "build_tree",
    "build_trees",
    "find_tree",
    "find_trees",
    "host_tree",
    "is_current",
    "list_trees",
    "load_recipes",
    "survey_host",
]
