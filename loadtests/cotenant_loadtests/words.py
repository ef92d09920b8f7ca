"""Text of a known number of tokens. Standard library only; pure.

Each word is one token, with the space before it, in the vocabularies of GPT-2, GPT-4, GPT-4o, DeepSeek and Claude,
so that `tokens` is close to what a server counts; a chat template adds its own. To cotenant's echo engine a
word is a token.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import shake_128
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cotenant_loadtests.planned import Message

CACHED_TOKENS = 1_000_000
"""Of all texts that are kept, for shared prefixes and histories: 6 MB."""
_TOKENS_OF_AN_ENTRY = 100
"""So many tokens take about as much memory as what keeps a text."""

_LIST = """
able above account act add adult again agree album allow along always amount animal answer apple area arm arrive
artist asset author avoid award away back ball bank base battle bear beauty bed behind below benefit better big bill
birth blue boat bone border bottle box brain brave break bridge bright brother brush build bus button cable call
camp candle captain carbon career case cat cell century chain chance chapter chart check chest child choose circle
claim clean clever climb cloth club coal code cold color come company concept connect contain context cook copy cost
could count couple court cow cream crew cross cry cup curve daily dance dark day dear decade deer delay demand depth
desk develop dialog dinner discuss divide dog double down dragon draw drink drop duck duty eager early earth eat
edge educate effort either element else energy enjoy enter entry escape even event exact except expand expert
express eye fact fail fall famous farmer father feature fee feel few fifteen file final fine finish firm fit flag
flight flow focus follow foot forget forward four free from fruit full future game gas gather giant girl glad global
good grade grand great ground grow guess habit half hand happy harvest have health heat height help hero hill hold
holiday hope hot hour however hundred hurry idea impact improve include indeed inner inside island item join journey
judge junior keep kind kitchen label lady lamp last laugh law lead learn leather left legal lesson level life like
line lion listen local long loose love luck machine mail make many march market matter mean meat meet memory message
method mile mill mine minute mix model moment moon morning mother mouse much must name native near need network news
nice nine noise nose nothing novel nurse observe ocean office old one only orange other our output owner paint
palace parent partner pass path pause peace pencil pepper period phone phrase picture pilot pipe plain planet plate
please pocket point pond poor post power press price print prize process profit project proof protect provide pull
pure purpose quality queen quiet radio rain range rare raw read real receive record reduce regular remain repair
reply request result reveal rice right rise road role root rose round royal run safe salt save scale school score
season second section see seem sell senior serve set seven shade shape sharp sheet shine shirt shop short side
silent silver since single site size sky slice slow smart snow soft solid soon soul soup south special speed spend
sport spread square staff star state stay steel stock stop storm stream strong study subject sugar summer supply
surface swim symbol table tall task teach team tend test than there thin think thirty thread through thus tie time
tired today tooth topic touch toward trace trade travel trip true truth tube twenty twin type union unit update
upper valley various very view visual volume walk warm watch wave weak weather weight well what when which whole
wild wind wing wire with without wonder word world would yard yes you youth
"""
WORDS: tuple[str, ...] = tuple(_LIST.split())
_EVEN, _ODD = WORDS[0::2], WORDS[1::2]


class Texts:
    """The texts that were asked for last, as many as `most_tokens` allow."""

    def __init__(self, most_tokens: int = CACHED_TOKENS) -> None:
        self._kept: OrderedDict[tuple[int, int], str] = OrderedDict()
        self._left = most_tokens
        self._most = most_tokens

    @property
    def used_tokens(self) -> int:
        return self._most - self._left

    def text(self, seed: int, tokens: int) -> str:
        """`tokens` words; a longer text of the same seed begins with the shorter one."""
        key = (seed, tokens)
        if (kept := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return kept
        made = _made(seed, tokens)
        if tokens + _TOKENS_OF_AN_ENTRY <= self._most:
            self._kept[key] = made
            self._left -= tokens + _TOKENS_OF_AN_ENTRY
            while self._left < 0:
                (_, oldest), _ = self._kept.popitem(last=False)
                self._left += oldest + _TOKENS_OF_AN_ENTRY
        return made


segment_text = Texts().text


def _made(seed: int, tokens: int) -> str:
    """One byte of SHAKE128 for each word: words at even places come from one half of the list, others from the other.

    That takes some 30 ns a word.
    """
    digest = shake_128(seed.to_bytes(8, "big")).digest(tokens)
    words = [""] * tokens
    words[0::2] = map(_EVEN.__getitem__, digest[0::2])
    words[1::2] = map(_ODD.__getitem__, digest[1::2])
    return " ".join(words)


def text_of(message: Message) -> str:
    """What a message says."""
    if message.text is not None:
        return message.text
    return " ".join([segment_text(segment.seed, segment.tokens) for segment in message.segments])
