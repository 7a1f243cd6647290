"""The report as text: terminal, Markdown, LaTeX, CSV."""
