"""How commands are killed: at random moments, and at every operation on the disk."""
