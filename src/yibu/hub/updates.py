"""Whether a file without a hash is still the one at its hub."""

from __future__ import annotations

import logging
from collections import deque

from yibu.errors import HubError, PullCancelledError
from yibu.hub import http
from yibu.hub.context import PullContext
from yibu.hub.evidence import Evidence, evidence
from yibu.hub.pages import may_be_page
from yibu.hub.records import RecordedFile
from yibu.hub.selection import RemoteFile
from yibu.hub.types import Source

logger = logging.getLogger(__name__)


def version_at_hub(
    source: Source, file: RemoteFile, known: RecordedFile, context: PullContext
) -> str | None:
    """What the hub's answer calls the file (``Evidence.version``); None where it is another one than
    ``known``. One byte is asked for: mirrors that give no hash often refuse HEAD.

    Raises:
        PullCancelledError: ``context.cancel`` was set.
    """
    if not file.url:
        return known.version  # offline
    name = f"{source}: {file.path}"

    def ask() -> Evidence:
        headers = {**file.headers, "Range": "bytes=0-0"}
        page = may_be_page(file.path)
        with context.client.get(file.url, headers, what=name, page=page) as response:
            if response.status_code == 206:  # read to its end, the connection is of use again
                deque(http.body(response, name), maxlen=0)
            return evidence(response)

    try:
        said = http.retrying(context.settings, name, ask, context.cancel)
    except PullCancelledError:
        raise
    except HubError as error:
        logger.warning("%s What is here already is used.", error.message)
        return known.version
    if said.expected.sha256:
        return said.version if said.expected.sha256 == known.sha256 else None
    both = [set(version.split("\n")) - {""} for version in (said.version, known.version)]
    # Machines that share a mirror may differ in one of the two, and serve the same bytes.
    if all(both) and not both[0] & both[1]:
        return None
    return said.version or known.version
