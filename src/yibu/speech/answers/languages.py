"""Language codes: what clients write, and the English names that OpenAI's answers carry."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from yibu.errors import InvalidRequestError
from yibu.messages import tr

_TABLE = """
af afrikaans afr
am amharic amh አማርኛ
ar arabic ara العربية arb
as assamese asm অসমীয়া
az azerbaijani aze azərbaycan azj azeri
ba bashkir bak башҡорт-теле
be belarusian bel беларуская byelorussian belorussian
bg bulgarian bul български
bn bengali ben bangla বাংলা
bo tibetan bod tib བོད་སྐད་
br breton bre brezhoneg
bs bosnian bos bosanski
ca catalan cat català valencian
cs czech ces cze čeština cestina
cy welsh cym wel cymraeg
da danish dan dansk
de german deu ger deutsch
el greek ell gre modern-greek ελληνικά greek-modern
en english eng 英语 英文
es spanish spa español castilian espanol castellano spanish-castilian
et estonian est eesti ekk
eu basque eus baq euskara
fa persian fas per فارسی farsi pes prs dari
fi finnish fin suomi
fo faroese fao føroyskt
fr french fra fre français francais
gl galician glg galego
gu gujarati guj ગુજરાતી gujrati
ha hausa hau
haw hawaiian ʻōlelo-hawaiʻi
he hebrew heb עברית iw
hi hindi hin हिन्दी
hr croatian hrv hrvatski scr
ht haitian_creole hat haitian kreyòl-ayisyen kreyol creole-haitian
hu hungarian hun magyar
hy armenian hye arm հայերեն
id indonesian ind bahasa-indonesia in bahasa
is icelandic isl ice íslenska
it italian ita italiano
ja japanese jpn 日本語 jp 日本语 nihongo
jw javanese jav jawa jv
ka georgian kat geo ქართული
kk kazakh kaz қазақ-тілі
km khmer khm ខ្មែរ cambodian
kn kannada kan ಕನ್ನಡ
ko korean kor 한국어 kr 조선말
la latin lat lingua-latina
lb luxembourgish ltz lëtzebuergesch letzeburgesch
ln lingala lin lingála
lo lao ລາວ laotian
lt lithuanian lit lietuvių
lv latvian lav latviešu lvs
mg malagasy mlg plt
mi maori mri mao māori
mk macedonian mkd mac македонски
ml malayalam mal മലയാളം
mn mongolian mon монгол khk
mr marathi mar मराठी
ms malay msa may bahasa-malaysia zsm bahasa-melayu
mt maltese mlt malti
my myanmar mya bur burmese မြန်မာ myanmar-burmese
ne nepali nep नेपाली npi
nl dutch nld dut nederlands flemish
nn nynorsk nno norwegian-nynorsk norsk-nynorsk
no norwegian nor norsk nb nob norwegian-bokmål norwegian-bokmal bokmål bokmal
oc occitan oci
pa punjabi pan panjabi ਪੰਜਾਬੀ pnb
pl polish pol polski
ps pashto pus pushto پښتو pashtu
pt portuguese por português portugues
ro romanian ron rum română moldavian moldovan mo mol
ru russian rus русский
sa sanskrit san संस्कृत-भाषा
sd sindhi snd سنڌي
si sinhala sin සිංහල sinhalese
sk slovak slk slo slovenčina
sl slovenian slv slovenščina slovene
sn shona sna chishona
so somali som soomaali
sq albanian sqi alb shqip als
sr serbian srp српски sh scc serbo-croatian
su sundanese sun basa-sunda
sv swedish swe svenska
sw swahili swa kiswahili swh
ta tamil tam தமிழ்
te telugu tel తెలుగు
tg tajik tgk тоҷикӣ
th thai tha ไทย
tk turkmen tuk türkmen-dili
tl tagalog tgl filipino fil pilipino
tr turkish tur türkçe turkce
tt tatar tat татар
uk ukrainian ukr українська
ur urdu urd اردو
uz uzbek uzb o'zbek uzn
vi vietnamese vie tiếng-việt tieng-viet
yi yiddish yid ייִדיש ji ydd
yo yoruba yor èdè-yorùbá
yue cantonese yue-chinese 粵語 zh-yue chinese-cantonese cantonese-chinese 粤语 廣東話 广东话
zh chinese zho chi 中文 mandarin cmn 普通话 普通話 国语 國語 汉语 漢語 简体中文 zn cn
"""
"""Code and English name, as whisper's tokenizer and OpenAI's answers have them; then what else clients
write: codes of ISO 639-1 to 639-3, old ones too, whisper's aliases, and what speakers call it."""

_ROWS = [line.split() for line in _TABLE.strip().splitlines()]
NAMES: dict[str, str] = {code: name for code, name, *_ in _ROWS}
_CODES = {alias: code for code, name, *aliases in _ROWS for alias in (name, *aliases)}
_AUTOMATIC = frozenset(
    {"", "auto", "automatic", "autodetect", "auto-detect", "detect"}
) | frozenset({"und", "unknown", "none", "null", "undefined"})
"""Nothing, and what programs write for it."""


def normalized(language: str | None, known: Collection[str]) -> str:
    """The model's code for what a client wrote: ``zn``, ``zho``, ``zh-CN``, ``mandarin`` and
    ``Chinese (Simplified)`` are all ``zh``; nothing is ``auto``.

    Raises:
        InvalidRequestError: the model does not know it.
    """
    text = unicodedata.normalize("NFKC", language or "").casefold().strip()
    wanted = re.sub(r"[\s_()]+", "-", text).strip("-")
    if text in _AUTOMATIC:
        return "auto"
    first, last = wanted.partition("-")[0], wanted.rpartition("-")[2]
    # "haitian-creole" is whole, "zh-tw" and "portuguese-brazil" begin with it, "us-english" ends so.
    for candidate in (wanted, wanted.replace("-", "_"), first, last):
        code = _CODES.get(candidate, candidate)
        if code in known:
            return code
    shown = (
        ", ".join(sorted(known))
        if len(known) <= 12
        else tr("{count} codes such as en, zh", count=len(known))
    )
    raise InvalidRequestError(
        tr(
            "The language {language!r} is not one this model knows: {shown}",
            language=(language or "")[:32],
            shown=shown,
        ),
        param="language",
        code="unknown_language",
    )


def name_of(code: str | None) -> str:
    """``chinese`` for ``zh``; the code itself where it has no name, ``unknown`` for None."""
    if code is None or code == "auto":
        return "unknown"
    return NAMES.get(code, code).replace("_", " ")
