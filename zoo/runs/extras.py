"""How what a command needs besides is installed."""

from sb3_genoffline.program import IN_CHECKOUT, PROGRAM


def installing(extra: str) -> str:
    """:param extra: of ``pyproject.toml``"""
    return f'pip install -e ".[{extra}]"' if PROGRAM == IN_CHECKOUT else f'pip install "sb3-genoffline[{extra}]"'
