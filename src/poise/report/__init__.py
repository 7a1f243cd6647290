"""What was found, for people: charts, one page, texts. Pure functions of `results.contents`."""
