"""OpenAI's shapes: what clients send is read here, and what they get is built here."""
