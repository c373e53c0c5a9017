// Draw a rectangle on a picture: with the pointer, or in per cent with the keyboard.

import { make } from "./shared/elements.js";

const LEAST = 0.02; // of a side: anything smaller was a click

export class RegionPicker {
  // `frame` holds the picture and is as large; `onChosen` gets [left, top, width, height] in 0..1, or null for all of it.
  constructor(frame, onChosen) {
    this.frame = frame;
    this.onChosen = onChosen;
    this.box = make("span", { class: "region-box", hidden: true, "aria-hidden": "true" });
    frame.append(this.box);
    frame.addEventListener("pointerdown", (event) => this.start(event));
    frame.addEventListener("pointermove", (event) => this.move(event));
    frame.addEventListener("pointerup", () => this.end());
    frame.addEventListener("pointercancel", () => { this.from = null; });
  }

  show(region) {
    this.region = region;
    this.box.hidden = !region;
    if (!region) return;
    const [left, top, width, height] = region.map((each) => `${100 * each}%`);
    Object.assign(this.box.style, { left, top, width, height });
  }

  at(event) {
    const { left, top, width, height } = this.frame.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height].map((each) => Math.min(1, Math.max(0, each)));
  }

  start(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.before = this.region;
    this.from = this.at(event);
    this.frame.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (!this.from) return;
    const to = this.at(event);
    const [left, top] = [0, 1].map((axis) => Math.min(this.from[axis], to[axis]));
    this.show([left, top, ...[0, 1].map((axis) => Math.abs(this.from[axis] - to[axis]))]);
  }

  end() {
    if (!this.from) return;
    this.from = null;
    const isDrawn = this.region && this.region[2] >= LEAST && this.region[3] >= LEAST;
    if (isDrawn && this.region !== this.before) this.onChosen(this.region);
    else this.show(this.before);
  }
}
