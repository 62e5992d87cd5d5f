"""Where networks and data may live."""

import re

import torch as th

from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short

_NAME = re.compile(r"auto|cpu|mps|cuda(:(\d{1,4}))?")


def check_device(name: str) -> str:
    """
    :param name: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``
    :return: the same
    :raises UserError: if it is none of these, or this machine has no such device
    """
    check_device_name(name)
    index = int(_NAME.fullmatch(name)[2] or 0)  # type: ignore[index]
    if name.startswith("cuda") and index >= th.cuda.device_count():
        raise UserError(f"device {short(name)}: PyTorch finds {th.cuda.device_count()} GPUs here; use cpu or auto.")
    if name == "mps" and not th.backends.mps.is_available():
        raise UserError("device 'mps': PyTorch finds no Metal GPU here; use cpu or auto.")
    return name


def check_device_name(name: object) -> str:
    """:raises UserError: if no machine has such a device"""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise UserError(f"device {short(name)} is not known; use auto, cpu, cuda, cuda:1 (the second GPU) or mps.")
    return name
