"""What search quality is measured with: labelled photos, and the metrics of ranked answers."""
