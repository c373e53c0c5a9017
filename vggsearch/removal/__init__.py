"""Act on duplicates: plan, perform with a journal, undo. Nothing here ever takes the last copy of a photo away."""
