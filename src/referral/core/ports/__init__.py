"""What the core needs of the world, and what it may rely on."""
