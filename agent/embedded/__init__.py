"""A Realtime server of our own, offline: ears, voice and mind for machines without a key."""
