"""How much anybody may ask of the server, and the headers that say so."""
