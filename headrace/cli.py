"""The `headrace` command: `serve`, `check`, `restore`, `backup`, `--version`.

argparse, because it costs nothing at start and adds no dependency. What runs the server is imported only when a command
needs it: whoever installs the client alone does not need it at all.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    if options.version:
        return _version()
    if options.command == "serve":
        return _serve(options)
    if options.command == "check":
        return _check(options)
    if options.command == "restore":
        return _restore(options)
    if options.command == "backup":
        return _backup(options)
    _parser().print_help()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headrace", description="An embedded, single-node streaming database.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser("serve", help="start the server", description="Start the server.")
    serve.add_argument("--config", type=Path, metavar="F", help="configuration file (TOML); see config.toml")
    serve.add_argument("--data", metavar="DIR", help="data folder (./data)")
    serve.add_argument("--host", metavar="H", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, metavar="N", help="port to listen on (2900); 0 takes a free one")
    serve.add_argument("--log-format", choices=("text", "json"), help="form of the log on standard error (text)")
    check = commands.add_parser(
        "check",
        help="check a data folder",
        description="Walk all structures of a data folder, also of one that is served, and report every inconsistency.",
    )
    check.add_argument("--data", metavar="DIR", type=Path, required=True, help="data folder")
    _backup_parsers(commands)
    return parser


def _backup_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    restore = commands.add_parser(
        "restore",
        help="make a data folder of a backup",
        description="Restore a backup into an empty folder, and check it. The server need not run.",
    )
    restore.add_argument("backup", metavar="BACKUP", type=Path, help="folder that BACKUP DATABASE wrote to")
    restore.add_argument("folder", metavar="DATA", type=Path, help="new data folder")
    restore.add_argument("--point", metavar="P", help="restore point (the newest one)")
    backup = commands.add_parser("backup", help="list and verify restore points", description="Look into a backup.")
    actions = backup.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list restore points", description="List restore points.")
    listing.add_argument("backup", metavar="BACKUP", type=Path, help="folder that BACKUP DATABASE wrote to")
    verify = actions.add_parser(
        "verify",
        help="verify a restore point",
        description="Compare all checksums of a restore point, restore it into a scratch folder and check that.",
    )
    verify.add_argument("backup", metavar="BACKUP", type=Path, help="folder that BACKUP DATABASE wrote to")
    verify.add_argument("--point", metavar="P", help="restore point (the newest one)")
    verify.add_argument("--quick", action="store_true", help="compare checksums only")
    verify.add_argument("--scratch", metavar="DIR", type=Path, help="where the scratch folder is made")


def _version() -> int:
    from importlib import metadata

    try:
        version = metadata.version("headrace")
    except metadata.PackageNotFoundError:  # run from its source, without being installed
        version = "0+unknown"
    print(f"headrace {version}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    flags = {
        ("storage", "data_path"): options.data,
        ("server", "host"): options.host,
        ("server", "port"): options.port,
        ("logging", "format"): options.log_format,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    importlib.import_module("server.memory").keep_small()  # before anything that allocates is loaded
    _lean()
    code: int = importlib.import_module("server.serve").serve(options.config, given, os.environ)
    return code


def _check(options: argparse.Namespace) -> int:
    _lean()
    code: int = importlib.import_module("server.check").check(options.data)
    return code


def _restore(options: argparse.Namespace) -> int:
    _lean()
    code: int = importlib.import_module("server.backup").restore(options.backup, options.folder, options.point)
    return code


def _backup(options: argparse.Namespace) -> int:
    _lean()
    backup = importlib.import_module("server.backup")
    code: int
    if options.action == "list":
        code = backup.list_points(options.backup)
    else:
        code = backup.verify(options.backup, options.point, quick=options.quick, scratch=options.scratch)
    return code


def _lean() -> None:
    """Keep libraries from importing what they use only where it happens to be installed, and the server never.

    pyarrow takes pandas: half a second and 50 MB. PyJWT takes cryptography (which credentials of storages need later):
    7 MB, for signatures other than the HS256 of our tokens.
    """
    refusing = _Refusing({"pandas", "cryptography"})
    sys.meta_path.insert(0, refusing)
    importlib.import_module("jwt")
    refusing.names.remove("cryptography")


class _Refusing:
    """A finder that finds nothing where one of `names` is asked for."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse those, and leave everything else to the other finders."""
        if name in self.names:
            raise ModuleNotFoundError(f"the server does not use {name} here", name=name)


if __name__ == "__main__":
    sys.exit(main())
