"""Images and texts from what people have: folders, tables, lists, archives, data sets of the hub."""
