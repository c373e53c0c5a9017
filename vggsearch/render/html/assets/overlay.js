// One picture laid over another where it lies in it: flipping reveals differences that no list of facts can show.

const BLINK_MS = 500;

export class Overlay {
  // `stage` holds the pictures `under` and `over`; `onShown` is called when another of them, or their difference, is seen.
  constructor(stage, under, over, onShown) {
    Object.assign(this, { stage, under, over, onShown, blinking: 0 });
  }

  // `below` and `above` have a width and a height; `corners` are those of the one above in the one below, null for all of it.
  layOut(below, above, corners) {
    const room = this.stage.parentElement;
    const scale = Math.min(room.clientWidth / below.width, room.clientHeight / below.height);
    const [width, height] = [below.width * scale, below.height * scale];
    this.stage.style.width = `${width}px`;
    this.stage.style.height = `${height}px`;
    this.stage.style.setProperty("--both", region(corners));
    this.over.style.transform = corners ? placed(corners, width, height) : "none";
    const isStretched = Math.abs((above.width / above.height) / (below.width / below.height) - 1) > 0.03;
    this.over.style.objectFit = isStretched && !corners ? "contain" : "fill";
    this.over.style.background = isStretched && !corners ? "#000" : "none";
  }

  get isFlipped() {
    return this.stage.classList.contains("flipped");
  }

  get isDifference() {
    return this.stage.classList.contains("difference");
  }

  flip() {
    this.stage.classList.toggle("flipped");
    this.onShown();
  }

  blink(isWanted = !this.blinking) {
    clearInterval(this.blinking);
    this.blinking = isWanted ? setInterval(() => this.flip(), BLINK_MS) : 0;
    this.onShown();
  }

  difference(isWanted = !this.isDifference) {
    this.stage.classList.toggle("difference", isWanted);
    this.onShown();
  }
}

// The region that both photos show: there is no difference to see elsewhere.
function region(corners) {
  const all = "inset(0)";
  return corners ? `polygon(${corners.map(([x, y]) => `${100 * x}% ${100 * y}%`).join(", ")})` : all;
}

// The matrix that maps a picture of the stage's size to its corners in the photo below.
function placed([[left, top], [right, rightTop], , [bottomLeft, bottom]], width, height) {
  const across = [right - left, ((rightTop - top) * height) / width];
  const down = [((bottomLeft - left) * width) / height, bottom - top];
  return `matrix(${[...across, ...down, left * width, top * height].join(",")})`;
}
