"""What people look at: drawings of cells."""
