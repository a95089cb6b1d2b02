"""What the user asked for: the recipe's schema, its reading, and the names it may use. No torch in here."""
