"""Charts of a report: for the page, and for papers."""
