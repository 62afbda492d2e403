"""From runs to pages: measures by name, published records, claims, plots, costs, and notebooks run again."""
