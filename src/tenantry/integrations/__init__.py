"""What applications of particular frameworks use: one module for each, named after it."""
