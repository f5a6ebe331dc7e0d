"""One telephone call, told in its own words: what it needs of its legs and what it decides."""
