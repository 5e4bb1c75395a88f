"""Texts for people, in English and Simplified Chinese, from gettext catalogues.

A text is written where it arises, ``tr("needs {needed}, {free} are free", needed=…, free=…)``, and is
a :class:`Message`: a string in the process's language that remembers its template and its values. So
it is made anew in the reader's language wherever it is shown: in the terminal when the node said it
(:func:`pack`, :func:`unpack` carry it over the control socket), in an answer to a client that asks
for Chinese (:func:`render`). Code never looks into its words.

Catalogues: ``locale/LANGUAGE/LC_MESSAGES/yibu.po``, made by ``make messages`` (scripts/messages.py).
"""

from yibu.messages.language import ENGLISH as ENGLISH
from yibu.messages.language import accepted as accepted
from yibu.messages.language import language_of as language_of
from yibu.messages.message import DOMAIN as DOMAIN
from yibu.messages.message import LOCALE as LOCALE
from yibu.messages.message import Message as Message
from yibu.messages.message import active as active
from yibu.messages.message import brief as brief
from yibu.messages.message import english as english
from yibu.messages.message import filled as filled
from yibu.messages.message import joined as joined
from yibu.messages.message import localized as localized
from yibu.messages.message import pack as pack
from yibu.messages.message import render as render
from yibu.messages.message import tr as tr
from yibu.messages.message import unpack as unpack
from yibu.messages.message import use as use
