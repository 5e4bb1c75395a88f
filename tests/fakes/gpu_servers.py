"""SGLang and LMDeploy in name: the modules that yibu's launchers import, in front of the fake engine.

They take the command lines of the real ones, print their arguments as SGLang does when it starts, and
serve as ``tests/fakes/engine.py``.
"""

from __future__ import annotations

from pathlib import Path

_SERVE = """
import os, sys
sys.path.insert(0, {fakes!r})

def serve(host, port, name, key):
    if key:
        os.environ["FAKE_API_KEY"] = key
    sys.argv[1:] = ["--host", host, "--port", port, "--model-name", name]
    import engine

    engine.main()
"""
_SGLANG = {
    "sglang/fake.py": _SERVE,
    "sglang/launch_server.py": """
from sglang.fake import serve

def run_server(args):
    print(f"server_args={args!r}", flush=True)
    serve(args.host, args.port, args.served_model_name, args.api_key)
""",
    "sglang/srt/plugins.py": "def load_plugins(): pass\n",
    "sglang/srt/utils.py": "def kill_process_tree(pid, include_parent): pass\n",
    "sglang/srt/server_args.py": """
import argparse

def prepare_server_args(argv):
    parser = argparse.ArgumentParser()
    for name in ("model-path", "host", "port", "served-model-name", "api-key",
                 "mem-fraction-static", "max-running-requests", "context-length", "tp-size"):
        parser.add_argument("--" + name)
    args, _ = parser.parse_known_args(argv)
    return args
""",
}
_LMDEPLOY = {
    "lmdeploy/fake.py": _SERVE,
    "lmdeploy/cli.py": """
import argparse, sys
from lmdeploy.fake import serve

def run():
    assert sys.argv[1:3] == ["serve", "api_server"], sys.argv
    parser = argparse.ArgumentParser()
    parser.add_argument("model_path")
    for name in ("server-name", "server-port", "model-name", "cache-max-entry-count",
                 "max-batch-size", "session-len", "tp"):
        parser.add_argument("--" + name)
    parser.add_argument("--enable-abort-handling", action="store_true")
    parser.add_argument("--api-keys", nargs="*", default=[])
    args = parser.parse_args(sys.argv[3:])
    serve(args.server_name, args.server_port, args.model_name, (args.api_keys or [None])[0])
""",
}


def write_packages(directory: Path) -> None:
    """Both packages, to be found through PYTHONPATH."""
    fakes = str(Path(__file__).parent)
    for name, text in {**_SGLANG, **_LMDEPLOY}.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        for parent in (file.parent, file.parent.parent):
            if parent != directory:
                (parent / "__init__.py").touch()
        file.write_text(text.replace("{fakes!r}", repr(fakes)))
