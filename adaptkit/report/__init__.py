"""The report of a study: prose, tables and figures as HTML, Markdown and JSON. Pure functions of records; no
torch."""
