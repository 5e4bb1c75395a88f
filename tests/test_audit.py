"""What `make audit` makes of pip-audit's report, as pip-audit 2.10 writes it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "audit", Path(__file__).parents[1] / "scripts/audit.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
audit = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(audit)

SKIPPED = {
    "name": "a",
    "skip_reason": "Dependency not found on PyPI and could not be audited: a (1)",
}
CLEAN: dict[str, Any] = {"name": "b", "version": "2", "vulns": []}
VULNERABLE = {"name": "c", "version": "3", "vulns": [{"id": "PYSEC-1", "fix_versions": ["4"]}]}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        (None, 0, "NOT AUDITED: the advisory service could not be asked: no route to host"),
        ([SKIPPED, SKIPPED], 0, "NOT AUDITED: the index has no advisories, for any of 2 packages"),
        ([CLEAN], 0, "core.lock: 1 packages audited, 0 vulnerabilities"),
        ([SKIPPED, CLEAN], 0, "1 packages audited, 1 could not be asked about, 0 vulnerabilities"),
        ([CLEAN, VULNERABLE], 1, "c 3: PYSEC-1, fixed in 4"),
    ],
    ids=["no service", "no advisories", "clean", "some", "vulnerable"],
)
def test_silence_is_not_taken_for_safety(packages: list[Any] | None, code: int, said: str) -> None:
    report = None if packages is None else {"dependencies": packages}
    found, lines = audit.judged("core.lock", report, "no route to host")
    assert found == code
    assert said in "\n".join(lines)
