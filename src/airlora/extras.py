"""What the base install leaves out: a command that needs it says so."""

from __future__ import annotations

from importlib.util import find_spec

from airlora.errors import InputError


def need(*packages: str) -> None:
    """Refuse to go on without these packages of the extra ``train``.

    Raises:
        InputError: one is not installed.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(f"this command needs {missing[0]}; install it with: pip install 'airlora[train]'")
