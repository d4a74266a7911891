"""The one client of OpenAI-compatible servers: what it asks (`openai`), over which connection
(`connection`), and bits per byte from its answers (`likelihood`)."""
