"""Runs the blocks of a page one after the other, as a reader would who copies them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.documents.blocks import OUTPUT, Block
from tests.e2e.home import Home
from tests.support.ports import free_port
from yibu.config import file as config_file

PORT = "8000"
"""The port in the documents, which may be taken on a machine that runs tests."""
_TIMEOUT = 900
_NGINX = """
events {{}}
http {{
    access_log off;
    {block}
}}
"""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who copies a page's blocks, in a directory of its own."""

    home: Home
    directory: Path
    port: int = field(default_factory=free_port)

    def prepare(self) -> None:
        """An empty directory, with `yibu`, `curl` and `python3` on the path."""
        self.directory.mkdir()
        commands = self.home.root / "bin"
        commands.mkdir(exist_ok=True)
        program = "from yibu.cli.main import main\nmain()\n"
        _executable(commands / "yibu", f"#!{sys.executable} -P\n{program}")
        # A refusal is no success: curl alone ends with 0 for it.
        if (curl := shutil.which("curl", path=os.environ["PATH"])) is None:
            pytest.skip("there is no curl here, with which the pages ask")
        _executable(commands / "curl", f'#!/bin/sh\nexec {curl} --fail-with-body "$@"\n')
        _executable(commands / "python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')

    @property
    def env(self) -> dict[str, str]:
        path = f"{self.home.root / 'bin'}{os.pathsep}{os.environ['PATH']}"
        user = self.home.root / "user"
        user.mkdir(exist_ok=True)
        return {
            **self.home.env,
            "PATH": path,
            "HOME": str(user),
            "YIBU_PORT": str(self.port),
            "YIBU_KEY": "sk-your-key",
            "ADMIN_KEY": "sk-your-key",
        }

    def read(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            if block.why is None and block.language not in OUTPUT:
                self.follow(block)

    def follow(self, block: Block) -> None:
        """Save, check or run one block."""
        text = block.text.replace(PORT, str(self.port))
        if block.title is not None:
            (self.directory / block.title).write_text(text, encoding="utf-8")
        match block.language:
            case "yaml" if block.title == "yibu.yaml":
                config_file.parse(text.encode(), "yibu.yaml", env=self.env)
                self.run("yibu", "config", "check")
            case "yaml":
                assert yaml.safe_load(text)
            case "nginx":
                self.check_nginx(text)
            case "caddy":
                self.check_caddy(text)
            case "python" if block.title is not None:
                compile(text, block.title, "exec")
            case "python":
                self.run("python3", "-c", text)
            case "bash" if block.title is not None:
                self.run("bash", "-n", block.title)
            case "bash":
                self.run("bash", "-euo", "pipefail", "-c", text)
            case other:
                pytest.fail(f"line {block.line}: nothing runs a block of {other!r}; say why")

    def check_nginx(self, text: str) -> None:
        """By nginx itself, with a certificate made for it, where there is one."""
        if not (shutil.which("nginx") and shutil.which("openssl")):
            return
        certificate, key = self.directory / "site.pem", self.directory / "site.key"
        self.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
                 "/CN=llm.example.com", "-keyout", str(key), "-out", str(certificate))  # fmt: skip
        text = text.replace("/etc/ssl/llm.example.com.pem", str(certificate))
        text = text.replace("/etc/ssl/llm.example.com.key", str(key))
        file = self.directory / "nginx.conf"
        file.write_text(_NGINX.format(block=text), encoding="utf-8")
        pid = f"pid {self.directory / 'nginx.pid'}; error_log stderr;"
        self.run("nginx", "-t", "-c", str(file), "-g", pid)

    def check_caddy(self, text: str) -> None:
        """By Caddy itself, where there is one."""
        if shutil.which("caddy"):
            file = self.directory / "Caddyfile"
            file.write_text(text, encoding="utf-8")
            self.run("caddy", "validate", "--adapter", "caddyfile", "--config", str(file))

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout


def _executable(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
