"""Write `docs/settings.md` from the settings' model; with --check only say whether the file is up to date."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic.fields import FieldInfo

from cryomamba_apiserver.setting_types import PREFIX, Unit
from cryomamba_apiserver.settings import GROUPS, Settings, is_secret

_HEADER = """<!-- Generated from the server's settings.py by `make generate`; changes made here are lost. -->

# Settings of the server

All are environment variables of `cryomamba serve`, and all have a default that suits one workstation. A variable that
begins with `CRYOMAMBA_` and is not in these tables is refused at start, by name, and so is a value that is wrong; the
value of a secret is never shown. Lists are one string, separated by commas.

`CRYOMAMBA_URL` and `CRYOMAMBA_TOKEN` are the client's, and what begins with `CRYOMAMBA_OPERATOR_` is the operator's;
the server looks at neither.
"""
_COLUMNS = "| variable | default | unit | meaning |\n|---|---|---|---|\n"


def document() -> str:
    """Return the page."""
    parts = [_HEADER]
    for group in GROUPS:
        parts.append(f"\n## {(group.__doc__ or '').rstrip('.')}\n\n{_COLUMNS}")
        parts += [_row(name, Settings.model_fields[name]) for name in group.model_fields]
    return "".join(parts)


def _row(name: str, field: FieldInfo) -> str:
    unit = next((item.name for item in _marks(field) if isinstance(item, Unit)), "")
    meaning = " ".join((field.description or "").split())
    if not meaning:
        raise ValueError(f"the setting {name} needs a docstring that says what it means")
    return f"| `{PREFIX}{name.upper()}` | {_default(name, field)} | {unit} | {meaning.replace('|', '&#124;')} |\n"


def _marks(field: FieldInfo) -> Iterator[object]:
    yield from field.metadata
    for kind in get_args(field.annotation):  # of a setting that may be none, its type has them
        yield from getattr(kind, "__metadata__", ())


def _default(name: str, field: FieldInfo) -> str:
    if name == "data_dir":
        return "`$XDG_DATA_HOME/cryomamba`"  # computed from the environment of whoever starts the server
    if field.is_required() or field.default_factory is not None or is_secret(name):
        return ""
    match field.default:
        case None | () | "":
            return ""
        case bool(chosen):
            return f"`{str(chosen).lower()}`"
        case tuple(words):
            return f"`{','.join(words)}`"
        case default:
            return f"`{default}`"


def main() -> int:
    """Return 1 where the file differs from what the model says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args().check
    path = Path(__file__).parents[1] / "docs" / "settings.md"
    text = document()
    if not check:
        path.write_text(text)
        return 0
    if path.exists() and path.read_text() == text:
        return 0
    print(f"{path.name} is not what the settings say; run `make generate` and commit the result", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
