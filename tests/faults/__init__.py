"""The fault campaign: everything is broken on purpose, over and over, and what must always hold is counted."""
