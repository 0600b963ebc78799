"""What runs in an engine: what a rank says of itself, and how it keeps to the group's budget."""
