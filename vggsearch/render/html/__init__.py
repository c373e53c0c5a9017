"""Groups of duplicates as one HTML file to review: thumbnails embedded, nothing fetched from anywhere."""
