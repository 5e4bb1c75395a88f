"""``python -m yibu.speech``, in the language of the environment."""

from __future__ import annotations

import gettext
import os
import sys

from yibu import messages

if __name__ == "__main__":
    language = messages.language_of(os.environ)
    messages.use(language)  # before what is imported speaks
    # argparse takes its own words from gettext.
    os.environ["LANGUAGE"] = language
    gettext.bindtextdomain(messages.DOMAIN, str(messages.LOCALE))
    gettext.textdomain(messages.DOMAIN)
    from yibu.speech.program import main

    sys.exit(main())
