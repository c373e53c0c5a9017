"""Groups of duplicates as one HTML file to look through: thumbnails inside, nothing fetched from anywhere."""
