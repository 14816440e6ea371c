"""The repositories, one for each port."""
