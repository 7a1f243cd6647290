"""From a comparison to what its report says."""
