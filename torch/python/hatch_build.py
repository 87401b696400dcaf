"""Gives the wheel its tag: any Python 3 runs the program that is in it, but only one kind of machine."""

import sysconfig

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Tag(BuildHookInterface):
    """Hook that hatchling finds here."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Replaces the tag py3-none-any."""
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
