"""The catalogue of models, and the one that ships with the product."""
