"""Jobs for another process, which imports this file alone: nothing that takes long to import belongs here."""

import os
import time
from typing import Any


def succeed(number: int) -> dict[str, Any]:
    print("standard output is the report's")
    return {"number": number, "passed": True}


def die() -> dict[str, Any]:
    os._exit(7)


def hang() -> dict[str, Any]:
    time.sleep(600)
    return {}
