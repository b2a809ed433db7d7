"""Page of the command line, from the program's own help: every command, argument and option as typer knows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HEAD = """\
# Command line

Written from the program's own help; `diffphys COMMAND --help` prints the same. Exit codes: 0 done, 2 the input cannot be used
(one line says why), 130 stopped by Ctrl-C with finished work kept. `diffphys --debug COMMAND` shows the traceback of an error.
"""


def markdown() -> str:
    """The whole page."""
    from typer.main import get_command

    from diffphys.cli.app import app

    return "\n".join([HEAD, *_sections(get_command(app), "diffphys", None)])


def commands(group: Any, name: str, parent: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """(full name, command, context) of every command that does something, groups opened."""
    context = group.context_class(group, info_name=name.split()[-1], parent=parent)
    for short in group.list_commands(context):
        command, full = group.get_command(context, short), f"{name} {short}"
        if hasattr(command, "list_commands"):
            yield from commands(command, full, context)
        else:
            yield full, command, command.context_class(command, info_name=short, parent=context)


def _sections(group: Any, name: str, parent: Any) -> Iterator[str]:
    for full, command, context in commands(group, name, parent):
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"\n## {full}\n\n{_escaped(command.help or '')}\n\n```text\n{full} {usage}\n```\n"
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record:
                yield f"`{record[0]}`\n: {_escaped(record[1])}\n"


def _escaped(text: str) -> str:
    """One paragraph in which the help's own words mean themselves; its code spans stay."""
    parts = " ".join(text.split()).split("`")
    plain = [_plain(p) if i % 2 == 0 else p for i, p in enumerate(parts)]
    return "`".join(plain) or "–"


def _plain(text: str) -> str:
    for sign in "\\*_[]<>|$#":
        text = text.replace(sign, f"\\{sign}")
    return text
