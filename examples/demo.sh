#!/bin/sh
# What `make demo` runs after installing: a sample folder (or PHOTOS), indexed, searched, and explained.
set -eu
BIN=${BIN:-.venv/bin}
PHOTOS=${PHOTOS:-demo/photos}
QUERY=${QUERY:-}
PATH="$BIN:$PATH"

say() { printf '\n%s\n' "$*"; }
run() { printf '\n$'; for word in "$@"; do case $word in *' '*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done; printf '\n'; "$@"; }

if [ "$PHOTOS" = demo/photos ]; then
    INDEX=demo/index
    say "Sample photos, out of the scikit-image and scikit-learn packages:"
    run python examples/make_photos.py demo/photos
else
    INDEX="indexes/$(basename "$PHOTOS")"
fi

say "1. Look at every photo once. Run it again and only new or changed photos are looked at."
run vggsearch index "$PHOTOS" --index "$INDEX"

if [ -z "$QUERY" ]; then
    QUERY=$(find "$PHOTOS" -type f \( -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.png' -o -iname '*.heic' \) | sort | head -n 1)
fi
say "2. Ask for the photos most like one of them."
run vggsearch query "$QUERY" --index "$INDEX"

if [ "$PHOTOS" = demo/photos ] && [ "$QUERY" = demo/photos/originals/chelsea.jpg ]; then
    say "What you see: the number is the similarity, 1.000 for the same picture. The cat finds herself, then her
mirror image, her half-size copy, a JPEG squeezed to quality 30 and a crop that lost two thirds of the
picture, although no file name or byte of them is the same. Then a gap: the rest are other photos."
    say "3. A picture that is not in the folder can be asked for too, here a small grey copy:"
    python -c "from PIL import Image; Image.open('$QUERY').convert('L').resize((120, 80)).save('demo/small_grey.png')"
    run vggsearch query demo/small_grey.png -k 3 --index "$INDEX"
    say "4. Find the copies, and which of each to keep. Nothing is changed; demo/dups.html shows them side by side."
    run vggsearch dups --index "$INDEX" --html demo/dups.html
else
    say "What you see: the number is the similarity, 1.000 for the same picture. Copies that were resized, re-saved,
mirrored or cropped come high up; then, after a gap, photos that merely look alike."
fi
say "Next, on your own photos:  make demo PHOTOS=~/Pictures QUERY=img.jpg
or, with $BIN on your PATH:  vggsearch index ~/Pictures && vggsearch query img.jpg && vggsearch dups"
