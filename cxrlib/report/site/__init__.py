"""The report's site: from executed notebooks and recorded numbers to pages that need no network."""
