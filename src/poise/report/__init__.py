"""Records for people: tables now, pages later. Sees records only."""
