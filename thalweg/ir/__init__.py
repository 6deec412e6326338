"""What a rule says: its declarations, its graph, and the graph cut into passes. No tensor moves here."""
