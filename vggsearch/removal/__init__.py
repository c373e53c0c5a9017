"""Remove duplicates: plan, perform with a journal, undo. No removal ever deletes the last copy of a photo."""
