"""What the recipes of all models share: start weights, export, figures, golden vectors, manifest, signature, card."""
