"""What everything computes with, frozen. Import the modules: this face is empty, so that some need no torch."""
