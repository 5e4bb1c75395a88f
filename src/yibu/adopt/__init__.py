"""From a start script, a command line or a running process to a yibu.yaml. Pure: nothing is run."""

from yibu.adopt.adoption import (
    adopt_process,
    adopt_script,
    adopt_servers,
    process_command,
)
from yibu.adopt.bash import Setting
from yibu.adopt.findings import Adoption
from yibu.adopt.servers import StartedServer, find_servers

__all__ = [
    "Adoption",
    "Setting",
    "StartedServer",
    "adopt_process",
    "adopt_script",
    "adopt_servers",
    "find_servers",
    "process_command",
]
