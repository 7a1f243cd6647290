"""Stage 1: networks, how they are trained, and the features that they give."""
