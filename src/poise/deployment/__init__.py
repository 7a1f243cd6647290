"""A model for a stated class prior, and other people's checkpoints with a new last layer."""
