"""Pages and drawings of one template, filled in with other content each time, for `library.py`."""

import random
from collections.abc import Callable

import numpy as np
from library_pictures import text, words
from PIL import Image, ImageDraw, ImageFilter

INK = (25, 25, 40)


def invoice(generator: random.Random) -> Image.Image:
    """Draw an invoice: other items, amounts and a number; the items are as many each time."""
    page = Image.new("RGB", (800, 1131), "white")
    draw = ImageDraw.Draw(page)
    draw.rectangle((50, 50, 150, 150), fill=(20, 90, 160))
    text(draw, (180, 60), "Northwind Stationery Ltd", 34)
    text(draw, (180, 108), "12 Harbour Road, Aberdeen", 18, "grey")
    text(draw, (50, 220), f"Invoice {generator.randrange(10**6):06}", 28)
    text(draw, (560, 220), f"{generator.randrange(1, 29)}/{generator.randrange(1, 13)}/2021", 22)
    draw.line((50, 300, 750, 300), INK, 2)
    total = 0
    for row in range(9):
        price = generator.randrange(100, 90_000)
        total += price
        text(draw, (60, 315 + row * 60), words(generator, 3), 20)
        text(draw, (640, 315 + row * 60), f"{price / 100:,.2f}", 20)
        draw.line((50, 350 + row * 60, 750, 350 + row * 60), (210, 210, 210))
    text(draw, (520, 880), f"Total {total / 100:,.2f}", 26)
    text(draw, (50, 1050), "Payable within 30 days. VAT registration GB 999 9999 73", 16, "grey")
    return page


def receipt(generator: random.Random) -> Image.Image:
    """Draw a till receipt as it is scanned: grey paper, other goods."""
    page = Image.new("RGB", (420, 900), (238, 236, 230))
    draw = ImageDraw.Draw(page)
    text(draw, (90, 30), "FRESH MARKET", 32)
    text(draw, (80, 75), "Your shop in the High Street", 17)
    for row in range(14):
        text(draw, (30, 140 + row * 40), words(generator, 1 + row % 2).upper(), 20)
        text(draw, (310, 140 + row * 40), f"{generator.randrange(20, 3000) / 100:6.2f}", 20)
    text(draw, (30, 730), f"{generator.randrange(24):02}:{generator.randrange(60):02}   Till 4", 20)
    text(draw, (60, 800), "Thank you for your visit", 20)
    grain = np.random.default_rng(generator.getrandbits(32)).normal(0, 3, (900, 420, 1))
    return Image.fromarray(np.clip(np.asarray(page) + grain, 0, 255).astype(np.uint8))


def calendar(generator: random.Random) -> Image.Image:
    """Draw a month with other appointments."""
    page = Image.new("RGB", (980, 760), "white")
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, 980, 80), fill=(200, 60, 50))
    text(draw, (30, 18), "June", 42, "white")
    for day in range(35):
        left, top = day % 7 * 140, 80 + day // 7 * 136
        draw.rectangle((left, top, left + 140, top + 136), outline=(190, 190, 190), width=2)
        text(draw, (left + 10, top + 6), str(day % 30 + 1), 24)
        if generator.random() < 0.4:
            colour = generator.choice(((190, 225, 250), (210, 240, 200), (255, 225, 170)))
            draw.rectangle((left + 8, top + 50, left + 132, top + 90), fill=colour)
            text(draw, (left + 14, top + 56), words(generator, 2), 18)
    return page


def slide(generator: random.Random) -> Image.Image:
    """Draw a slide of a talk: its frame, title and logo stay."""
    page = Image.new("RGB", (1280, 720), (245, 248, 252))
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, 1280, 96), fill=(18, 60, 110))
    text(draw, (50, 22), "Quarterly review of the northern region", 44, "white")
    draw.ellipse((1150, 600, 1250, 700), fill=(235, 120, 30))
    text(draw, (50, 675), "Confidential - for internal use", 20, "grey")
    for row in range(generator.randrange(3, 7)):
        text(draw, (90, 150 + row * 84), f"-  {words(generator, generator.randrange(3, 7))}", 36)
    return page


def street_map(generator: random.Random) -> Image.Image:
    """Draw a map app's screen: its controls stay, the streets are others."""
    page = Image.new("RGB", (620, 1100), (242, 239, 230))
    draw = ImageDraw.Draw(page)
    for _ in range(5):
        x, y = generator.randrange(620), generator.randrange(1100)
        draw.ellipse((x, y, x + 180, y + 120), fill=(200, 228, 190))
    for _ in range(16):
        ends = [generator.choice((0, generator.randrange(620), 620)), generator.randrange(1100)]
        ends += [generator.randrange(620), generator.choice((0, generator.randrange(1100), 1100))]
        draw.line(ends, "white", generator.choice((6, 10, 18)))
    draw.rounded_rectangle((20, 30, 600, 100), 30, fill="white", outline=(200, 200, 200))
    text(draw, (60, 48), "Search here", 28, "grey")
    draw.ellipse((510, 900, 590, 980), fill=(30, 110, 230))
    draw.rectangle((0, 1010, 620, 1100), fill="white")
    for left, name in ((40, "Explore"), (190, "Go"), (310, "Saved"), (450, "Updates")):
        text(draw, (left, 1040), name, 24, "grey")
    return page


def sheet_music(generator: random.Random) -> Image.Image:
    page = Image.new("RGB", (800, 1100), (252, 250, 243))
    draw = ImageDraw.Draw(page)
    text(draw, (290, 30), "Etude in G major", 30)
    for stave in range(9):
        top = 110 + stave * 108
        for line in range(5):
            draw.line((40, top + line * 12, 760, top + line * 12), INK, 2)
        text(draw, (46, top - 6), "G", 52)
        for note in range(14):
            x, y = 120 + note * 45, top - 12 + 6 * generator.randrange(12)
            draw.ellipse((x, y, x + 15, y + 11), fill=INK)
            draw.line((x + 14, y + 5, x + 14, y - 34), INK, 2)
    return page


def bank_card(generator: random.Random) -> Image.Image:
    """Draw a bank card: one printed background, another name and number."""
    base = np.random.default_rng(7).normal(0, 1, (60, 90, 3)).astype(np.float32)
    spread = np.clip(90 + 60 * base, 0, 255).astype(np.uint8)
    page = Image.fromarray(spread).filter(ImageFilter.GaussianBlur(3)).resize((860, 540), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(page)
    text(draw, (50, 40), "MERIDIAN BANK", 48, "white")
    draw.rounded_rectangle((60, 180, 170, 265), 14, fill=(222, 190, 110))
    number = "  ".join(f"{generator.randrange(10**4):04}" for _ in range(4))
    text(draw, (60, 310), number, 54, "white")
    text(draw, (60, 440), words(generator, 2).upper(), 34, "white")
    text(draw, (560, 440), f"{generator.randrange(1, 13):02}/{generator.randrange(24, 31)}", 34, "white")
    return page


MORE_TEMPLATES: dict[str, Callable[[random.Random], Image.Image]] = {
    "invoice": invoice,
    "receipt": receipt,
    "calendar": calendar,
    "slide": slide,
    "map": street_map,
    "music": sheet_music,
    "card": bank_card,
}
