"""From runs to pages: measures by name, published records, claims, plots, costs, and notebooks run again.

The sentences of pages that records choose are in `answers/`.
"""
