"""The packages: the library, and the folder ``zoo`` within it (all else is in pyproject.toml)."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["sb3_genoffline*"]),
        *(f"sb3_genoffline.{name}" for name in find_packages(include=["zoo*"])),
    ],
    package_dir={"sb3_genoffline.zoo": "zoo"},
)
