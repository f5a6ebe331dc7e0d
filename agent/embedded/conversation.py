"""The conversation: its items in their order, and where on the wire each stands.

Pure; a client's mistake is a `Refused` and changes nothing.
"""

from agent.embedded.protocol import JsonObject, Refused, new_id


class Conversation:
    """The items in their order, and what the wire says of where each stands."""

    _MOST_ITEMS = 2000

    def __init__(self) -> None:
        self.id = new_id("conv_")
        self._items: dict[str, JsonObject] = {}
        self._order: list[str] = []

    @property
    def items(self) -> list[JsonObject]:
        """All items in their order."""
        return [self._items[item_id] for item_id in self._order]

    @property
    def last_id(self) -> str | None:
        """The item a new one would follow."""
        return self._order[-1] if self._order else None

    def get(self, item_id: object) -> JsonObject:
        """Find an item.

        Raises:
            Refused: There is none of that id.
        """
        item = self._items.get(item_id) if isinstance(item_id, str) else None
        if item is None:
            raise Refused(
                "invalid_value", f"Item with item_id not found: {item_id!r:.80}.", "item_id"
            )
        return item

    def find(self, item_id: str) -> JsonObject | None:
        """Find an item that may have been deleted since."""
        return self._items.get(item_id)

    def add(self, item: JsonObject, after: object = None) -> str | None:
        """Put an item in its place.

        Args:
            item: With its id.
            after: Another item's id, "root" for the front, None for the end.

        Returns:
            The id of the item before it.

        Raises:
            Refused: `after` is unknown, or the id is taken.
        """
        if item["id"] in self._items:
            raise Refused("invalid_value", "An item of that id exists already.", "item.id")
        if after is None:
            place = len(self._order)
        elif after == "root":
            place = 0
        elif after in self._order:
            place = self._order.index(str(after)) + 1
        else:
            raise Refused("invalid_value", f"No item to follow: {after!r:.80}.", "previous_item_id")
        before = self._order[place - 1] if place else None
        self._order.insert(place, item["id"])
        self._items[item["id"]] = item
        if len(self._order) > self._MOST_ITEMS:
            del self._items[self._order.pop(0)]
        return before

    def remove(self, item_id: object) -> None:
        """Forget an item.

        Raises:
            Refused: There is none of that id.
        """
        self._order.remove(self.get(item_id)["id"])
        del self._items[str(item_id)]

    def function_name(self, call_id: str) -> str:
        """Which tool a call id was given to; "" when unknown."""
        for item in self._items.values():
            if item["type"] == "function_call" and item.get("call_id") == call_id:
                return str(item["name"])
        return ""
