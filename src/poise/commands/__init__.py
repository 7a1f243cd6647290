"""What a verb does, without a command line."""
