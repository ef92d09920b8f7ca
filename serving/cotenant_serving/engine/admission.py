"""Which requests may enter the KV cache now: whole pages, in order of arrival. Pure.

transformers' scheduler ends its loop, for every request, when a prompt cannot be placed. So a request is handed
to it only when its prompt and its whole possible answer have room.
"""

from collections import OrderedDict


def pages_for(tokens: int, page_tokens: int) -> int:
    return -(-tokens // page_tokens)


class PageLedger:
    """Pages reserved by running requests, and the queue of those that wait for room."""

    def __init__(self, pages: int, page_tokens: int) -> None:
        self.pages = pages
        self._page_tokens = page_tokens
        self._reserved: dict[str, int] = {}
        self._waiting: OrderedDict[str, int] = OrderedDict()

    @property
    def free_pages(self) -> int:
        return self.pages - sum(self._reserved.values())

    def enqueue(self, request_id: str, tokens: int) -> None:
        """`tokens`: prompt plus longest answer. Raises ValueError for what can never fit."""
        needed = pages_for(tokens, self._page_tokens)
        if needed > self.pages:
            raise ValueError(f"{tokens} tokens need {needed} pages, the KV cache has {self.pages}")
        self._waiting[request_id] = needed

    def admit(self) -> list[str]:
        """Moves from the queue's head what fits now; a small request never overtakes a large one."""
        admitted: list[str] = []
        free = self.free_pages
        while self._waiting:
            request_id, needed = next(iter(self._waiting.items()))
            if needed > free:
                break
            del self._waiting[request_id]
            self._reserved[request_id] = needed
            free -= needed
            admitted.append(request_id)
        return admitted

    def release(self, request_id: str) -> None:
        """Gives back the pages, or the place in the queue. Unknown ids are ignored."""
        self._reserved.pop(request_id, None)
        self._waiting.pop(request_id, None)
