"""Tables and arrays of numbers, as they stand in files; the tables without torch."""
