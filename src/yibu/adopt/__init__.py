"""From a start script, a command line or a running process to a yibu.yaml. Pure: nothing is run."""

from yibu.adopt.adoption import Adoption, adopt_process, adopt_script

__all__ = ["Adoption", "adopt_process", "adopt_script"]
