"""Picture sets that are drawn instead of collected: rendered signs, emoji, and emoji over words."""
