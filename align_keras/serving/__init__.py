"""Export, index and page."""
