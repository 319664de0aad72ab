"""What can be searched: token grammars and what the tokens mean."""
