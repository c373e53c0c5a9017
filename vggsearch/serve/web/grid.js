// Photos in rows of one width, each as large as its row allows. Only the rows near the window exist, however many there are.

import { make } from "./shared/elements.js";
import { missing } from "./api.js";

const GAP = 6; // pixels between photos
const HEAD = 44; // pixels of a section's heading
const NEAR = 1; // window heights above and below that are drawn
const QUIET_MS = 90; // without scrolling, after which pictures are asked for
const NAMED = 60; // pixels of height of a tile that has the name of a photo in place of the picture
const LEAP = 20; // pixels per millisecond of scrolling, beyond which what is near is gone in the next frame
const FAST = 2.5; // pixels per millisecond of scrolling, beyond which a photo is gone before its picture arrives

export class Grid {
  // `photos` has `count`, `aspect(i)`, `sections` ([{label, start}]), `picture(i, pixels)`, `name(i)` and, to add to a tile
  // once it is made, `decorate(tile, i)`; `caption` is the height in pixels that this takes below the picture.
  constructor(host, { label, caption = 0, onOpen, onNear = () => {}, onKey = () => {} }) {
    this.heads = make("div", { class: "heads" });
    this.list = make("ul", { class: "tiles", "aria-label": label });
    this.host = host;
    host.classList.add("grid");
    host.replaceChildren(this.heads, this.list);
    Object.assign(this, { caption, onOpen, onNear, onKey, photos: none(), tiles: new Map(), drawnHeads: new Map(), active: 0 });
    this.list.addEventListener("click", (event) => this.click(event));
    this.list.addEventListener("keydown", (event) => this.press(event));
    this.list.addEventListener("focusin", (event) => this.follow(event));
    addEventListener("scroll", () => this.schedule(), { passive: true });
    new ResizeObserver(() => this.layOut()).observe(host);
  }

  show(photos) {
    this.photos = photos;
    this.active = 0;
    this.clear();
    this.layOut(true);
  }

  // More photos at the end: what is drawn already stays.
  grow() {
    this.layOut(true);
  }

  clear() {
    for (const tile of this.tiles.values()) tile.remove();
    for (const head of this.drawnHeads.values()) head.remove();
    this.tiles.clear();
    this.drawnHeads.clear();
  }

  // Layout: rows as columns of numbers, so that 100,000 photos take milliseconds.

  layOut(isForced = false) {
    const width = this.host.clientWidth;
    if (!width || (!isForced && width === this.width)) return;
    const anchor = isForced ? null : this.anchor();
    this.width = width;
    this.rows = rowsOf(this.photos, width, this.caption);
    this.host.style.height = `${this.rows.height}px`;
    for (const [index, tile] of this.tiles) this.place(tile, index);
    for (const head of this.drawnHeads.values()) head.remove();
    this.drawnHeads.clear();
    if (anchor) scrollTo(0, this.top() + this.rows.tops[this.rows.rowOf(anchor.index)] - anchor.offset);
    this.draw();
  }

  // The first photo in the window and how far below its upper edge it is, if the window is inside the grid.
  anchor() {
    const above = scrollY - this.top();
    if (!this.rows?.tops.length || above <= 0) return null;
    const row = Math.min(this.rows.at(above) + 1, this.rows.tops.length - 1);
    return { index: this.rows.starts[row], offset: this.rows.tops[row] - above };
  }

  top() {
    return this.host.getBoundingClientRect().top + scrollY;
  }

  place(tile, index) {
    const { left, top, width, height } = this.rows.box(index);
    Object.assign(tile.style, { transform: `translate(${left}px, ${top}px)`, width: `${width}px`, height: `${height + this.caption}px` });
    tile.firstChild.firstChild.style.height = `${height}px`;
    tile.setAttribute("aria-setsize", this.photos.count);
  }

  // Drawing

  schedule() {
    if (this.isScheduled || !this.host.clientWidth) return;
    this.isScheduled = true;
    requestAnimationFrame((now) => {
      this.isScheduled = false;
      const speed = Math.abs(scrollY - (this.lastTop ?? scrollY)) / Math.max(1, now - (this.lastTime ?? 0));
      [this.lastTop, this.lastTime] = [scrollY, now];
      this.draw(speed);
    });
  }

  draw(speed = 0) {
    if (!this.rows) return;
    const above = scrollY - this.top();
    const near = speed < LEAP ? NEAR * innerHeight : 0;
    const [first, last] = [this.rows.at(above - near), this.rows.at(above + innerHeight + near)];
    const [from, to] = this.photos.count ? [this.rows.starts[first], this.rows.ends[last]] : [0, 0];
    for (const [index, tile] of this.tiles) {
      if ((index < from || index >= to) && !tile.contains(document.activeElement)) {
        tile.remove();
        this.tiles.delete(index);
      }
    }
    for (let index = from; index < to; index += 1) if (!this.tiles.has(index)) this.add(index);
    this.drawHeads(first, last);
    clearTimeout(this.loading);
    if (speed < FAST) this.load();
    else this.loading = setTimeout(() => this.draw(), QUIET_MS);
    if (to >= this.photos.count && this.photos.count) this.onNear();
  }

  add(index) {
    const name = this.photos.name(index);
    const image = make("img", { alt: name, draggable: "false", decoding: "async" });
    const picture = missing.has("photos") ? make("span", { class: "picture named" }, name) : make("span", { class: "picture" }, image);
    const button = make("button", { type: "button", class: "tile", tabindex: index === this.active ? "0" : "-1" }, picture);
    const tile = make("li", { "aria-posinset": index + 1 }, button);
    tile.dataset.index = index;
    this.photos.decorate?.(tile, index);
    image.addEventListener("load", () => picture.classList.add("loaded"));
    image.addEventListener("error", () => picture.classList.add("missing-picture"));
    this.place(tile, index);
    this.tiles.set(index, tile);
    this.list.append(tile);
  }

  load() {
    for (const [index, tile] of this.tiles) {
      const image = tile.querySelector("img");
      if (!image || image.hasAttribute("src")) continue;
      const { width, height } = this.rows.box(index);
      image.src = this.photos.picture(index, Math.max(width, height));
    }
  }

  drawHeads(first, last) {
    const shown = this.rows.heads.filter(({ row }) => row >= first && row <= last);
    const wanted = new Set(shown);
    for (const [head, drawn] of this.drawnHeads) {
      if (wanted.has(head)) continue;
      drawn.remove();
      this.drawnHeads.delete(head);
    }
    for (const head of shown.filter((each) => !this.drawnHeads.has(each))) {
      const drawn = make("h2", {}, head.label);
      drawn.style.transform = `translateY(${head.top}px)`;
      this.drawnHeads.set(head, drawn);
      this.heads.append(drawn);
    }
  }

  // Focus: one photo can be reached with Tab, the others from it with the arrow keys.

  activate(index, isFocused = true) {
    this.tiles.get(this.active)?.firstChild.setAttribute("tabindex", "-1");
    this.active = Math.max(0, Math.min(index, this.photos.count - 1));
    if (!isFocused) return;
    this.reveal(this.active);
    this.draw();
    const button = this.tiles.get(this.active)?.firstChild;
    button?.setAttribute("tabindex", "0");
    button?.focus({ preventScroll: true });
  }

  reveal(index) {
    const { top, height } = this.rows.box(index);
    const [from, to] = [this.top() + top - 120, this.top() + top + height + this.caption + 16];
    if (from < scrollY) scrollTo(0, from);
    else if (to > scrollY + innerHeight) scrollTo(0, to - innerHeight);
  }

  scrollToPhoto(index) {
    scrollTo(0, this.top() + this.rows.tops[this.rows.rowOf(index)] - HEAD - 110);
  }

  indexOf(event) {
    const tile = event.target.closest("li");
    return tile ? Number(tile.dataset.index) : null;
  }

  click(event) {
    const index = this.indexOf(event);
    if (index === null) return;
    this.activate(index, false);
    event.target.closest("button")?.setAttribute("tabindex", "0");
    if (event.target.closest(".tile")) this.onOpen(index);
  }

  follow(event) {
    const index = this.indexOf(event);
    if (index === null || index === this.active || !event.target.closest(".tile")) return;
    this.activate(index, false);
    event.target.setAttribute("tabindex", "0");
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const index = this.indexOf(event);
    const step = index === null ? null : this.step(event.key, index);
    if (step !== null) {
      event.preventDefault();
      this.activate(step);
    } else if (index !== null && this.onKey(event.key, index)) {
      event.preventDefault();
      event.stopPropagation();
    }
  }

  step(key, index) {
    switch (key) {
      case "ArrowRight": return index + 1;
      case "ArrowLeft": return index - 1;
      case "ArrowDown": return this.rows.beside(index, 1);
      case "ArrowUp": return this.rows.beside(index, -1);
      case "PageDown": return this.rows.beside(index, 3);
      case "PageUp": return this.rows.beside(index, -3);
      case "Home": return 0;
      case "End": return this.photos.count - 1;
      default: return null;
    }
  }
}

function none() {
  return { count: 0, aspect: () => 1, sections: [], picture: () => "", name: () => "" };
}

function wantedHeight(width) {
  return width < 500 ? 130 : width < 900 ? 170 : width < 1600 ? 200 : 230;
}

class Rows {
  constructor(photos, caption) {
    Object.assign(this, { photos, caption, starts: [], ends: [], tops: [], heights: [], heads: [], height: 0 });
  }

  add(start, end, height) {
    this.starts.push(start);
    this.ends.push(end);
    this.tops.push(this.height);
    this.heights.push(height);
    this.height += height + this.caption + GAP;
  }

  addHead(label) {
    this.heads.push({ label, top: this.height, row: this.starts.length });
    this.height += HEAD;
  }

  // The row at a distance from the top; the first or the last for one outside.
  at(top) {
    return Math.max(0, lastNotAbove(this.tops, top));
  }

  rowOf(index) {
    return Math.max(0, lastNotAbove(this.starts, index));
  }

  box(index) {
    const row = this.rowOf(index);
    const height = this.heights[row];
    let left = 0;
    for (let before = this.starts[row]; before < index; before += 1) left += this.photos.aspect(before) * height + GAP;
    return { left, top: this.tops[row], width: this.photos.aspect(index) * height, height };
  }

  // The photo in a row some rows away whose middle is nearest.
  beside(index, step) {
    const { left, width } = this.box(index);
    const row = Math.max(0, Math.min(this.rowOf(index) + step, this.starts.length - 1));
    if (row === this.rowOf(index)) return index;
    const middle = left + width / 2;
    for (let next = this.starts[row]; next < this.ends[row]; next += 1) {
      const box = this.box(next);
      if (box.left + box.width >= middle) return next;
    }
    return this.ends[row] - 1;
  }
}

function lastNotAbove(values, limit) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function rowsOf(photos, width, caption) {
  const rows = new Rows(photos, caption);
  const wanted = missing.has("photos") ? NAMED : wantedHeight(width);
  const sections = photos.sections.length ? photos.sections : [{ label: "", start: 0 }];
  sections.forEach(({ label, start }, number) => {
    const end = sections[number + 1]?.start ?? photos.count;
    if (label && end > start) rows.addHead(label);
    let [first, sum] = [start, 0];
    for (let index = start; index < end; index += 1) {
      sum += photos.aspect(index);
      const room = width - GAP * (index - first);
      if (sum * wanted < room) continue;
      rows.add(first, index + 1, room / sum);
      [first, sum] = [index + 1, 0];
    }
    if (first < end) rows.add(first, end, wanted);
  });
  return rows;
}
