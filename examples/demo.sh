#!/bin/sh
# What `make demo` runs after the installation: index a sample folder (or PHOTOS), search it, and explain the output.
set -eu
VENV=${VENV:-.venv}
PHOTOS=${PHOTOS:-demo/photos}
QUERY=${QUERY:-}
PATH="$VENV/bin:$PATH"

say() { printf '\n%s\n' "$*"; }
run() { printf '\n$'; for word in "$@"; do case $word in *' '*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done; printf '\n'; "$@"; }

SIZE=$(du -sk "$VENV" | awk '{ mb = $1 * 1024 / 1000000; if (mb < 1000) printf "%.0f MB", mb; else printf "%.1f GB", mb / 1000 }')
if [ "$VENV" = .venv-cpu ]; then
    say "Installed: vggsearch-cpu, for machines without a GPU, in $VENV ($SIZE). For GPUs: make demo FLAVOUR=gpu"
else
    say "Installed: vggsearch, for machines with a GPU, in $VENV ($SIZE). Without PyTorch: make demo FLAVOUR=cpu"
fi

if [ "$PHOTOS" = demo/photos ]; then
    INDEX=demo/index
    if [ ! -d demo/photos ]; then
        say "Sample photos, from the scikit-image and scikit-learn packages:"
        # shellcheck disable=SC2086  # several options
        python -m pip install ${PIP_OPTIONS:--q} --no-deps --no-compile --target demo/packages scikit-image scikit-learn
        PYTHONPATH=demo/packages run python examples/make_photos.py demo/photos
        rm -r demo/packages  # only their pictures were wanted
    fi
else
    INDEX="indexes/$(basename "$PHOTOS")"
fi

say "1. Index the folder. Run it again, and only new and changed photos are processed."
run vggsearch index "$PHOTOS" --index "$INDEX"

if [ -z "$QUERY" ]; then
    QUERY=$(find "$PHOTOS" -type f \( -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.png' -o -iname '*.heic' \) | sort | head -n 1)
fi
say "2. Find the photos most similar to one of them."
run vggsearch query "$QUERY" --index "$INDEX"

if [ "$PHOTOS" = demo/photos ] && [ "$QUERY" = demo/photos/originals/chelsea.jpg ]; then
    say "The number is the similarity; 1.000 means the same picture. The query finds the cat itself, then its mirror
image, its half-size copy, a JPEG of quality 30 and a crop that lost two thirds of the picture, although they
share no file name and no bytes. After a gap come other photos."
    say "3. The query need not be in the folder. Here it is a small greyscale copy:"
    python -c "from PIL import Image; Image.open('$QUERY').convert('L').resize((120, 80)).save('demo/small_grey.png')"
    run vggsearch query demo/small_grey.png -k 3 --index "$INDEX"
    say "4. Find the duplicates and which photo of each group to keep. Nothing is changed; demo/dups.html shows them."
    run vggsearch dups --index "$INDEX" --html demo/dups.html
else
    say "The number is the similarity; 1.000 means the same picture. Copies that were resized, re-saved, mirrored or
cropped come first; after a gap follow photos that merely look alike."
fi
say "Next, on your own photos:     make demo PHOTOS=~/Pictures QUERY=img.jpg
or, with $VENV/bin in your PATH:  vggsearch index ~/Pictures && vggsearch query img.jpg && vggsearch dups"
