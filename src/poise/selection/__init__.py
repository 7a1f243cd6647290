"""Settings tried, judged and compared."""
