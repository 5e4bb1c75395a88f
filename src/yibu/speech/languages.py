"""Language codes: what clients write, and the English names that OpenAI's answers carry."""

from __future__ import annotations

from collections.abc import Collection

from yibu.errors import InvalidRequestError

_ALIASES = {"zn": "zh", "cn": "zh", "jp": "ja", "kr": "ko", "cmn": "zh"}
"""Slips seen in scripts around SenseVoice, ``zn`` first of all."""

_TABLE = """
af=afrikaans am=amharic ar=arabic as=assamese az=azerbaijani ba=bashkir be=belarusian bg=bulgarian
bn=bengali bo=tibetan br=breton bs=bosnian ca=catalan cs=czech cy=welsh da=danish de=german
el=greek en=english es=spanish et=estonian eu=basque fa=persian fi=finnish fo=faroese fr=french
gl=galician gu=gujarati ha=hausa haw=hawaiian he=hebrew hi=hindi hr=croatian ht=haitian_creole
hu=hungarian hy=armenian id=indonesian is=icelandic it=italian ja=japanese jw=javanese ka=georgian
kk=kazakh km=khmer kn=kannada ko=korean la=latin lb=luxembourgish ln=lingala lo=lao lt=lithuanian
lv=latvian mg=malagasy mi=maori mk=macedonian ml=malayalam mn=mongolian mr=marathi ms=malay
mt=maltese my=myanmar ne=nepali nl=dutch nn=nynorsk no=norwegian oc=occitan pa=punjabi pl=polish
ps=pashto pt=portuguese ro=romanian ru=russian sa=sanskrit sd=sindhi si=sinhala sk=slovak
sl=slovenian sn=shona so=somali sq=albanian sr=serbian su=sundanese sv=swedish sw=swahili ta=tamil
te=telugu tg=tajik th=thai tk=turkmen tl=tagalog tr=turkish tt=tatar uk=ukrainian ur=urdu uz=uzbek
vi=vietnamese yi=yiddish yo=yoruba yue=cantonese zh=chinese
"""

NAMES: dict[str, str] = dict(pair.split("=") for pair in _TABLE.split())
"""English name by code, as whisper's tokenizer and OpenAI's answers have them."""


def normalized(language: str | None, known: Collection[str]) -> str:
    """The model's code for what a client wrote: ``zn``, ``ZH``, ``zh-CN`` and ``chinese`` are
    all ``zh``; nothing is ``auto``.

    Raises:
        InvalidRequestError: the model does not know it.
    """
    if not language:
        return "auto"
    wanted = language.strip().lower().replace("_", "-")
    by_name = next((code for code, name in NAMES.items() if name == wanted), wanted)
    for candidate in (by_name, by_name.split("-")[0]):
        code = _ALIASES.get(candidate, candidate)
        if code in known:
            return code
    shown = ", ".join(sorted(known)) if len(known) <= 12 else f"{len(known)} codes such as en, zh"
    raise InvalidRequestError(
        f"The language {language[:32]!r} is not one this model knows: {shown}",
        param="language",
        code="unknown_language",
    )


def name_of(code: str | None) -> str:
    """``chinese`` for ``zh``; the code itself where it has no name, ``unknown`` for None."""
    if code is None or code == "auto":
        return "unknown"
    return NAMES.get(code, code).replace("_", " ")
