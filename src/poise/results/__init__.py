"""Everything measured, as plain numbers; without torch."""
