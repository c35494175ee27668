"""What several commands share. Nothing here is run by itself."""
