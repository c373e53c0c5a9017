// The list: which groups, in which order, drawn only near the viewport, and which of them is the current one.

import { NUMBER, bytesText, make, quantity } from "./elements.js";
import { cardContent } from "./cards.js";

const NEAR = "150% 0px"; // how far from the viewport a group is drawn
const CARD = { title: 60, row: 212, wide: 1500 }; // pixels, roughly: the size of a card before it is drawn
const SORTS = {
  "as listed": (one, other) => one.number - other.number,
  "least certain first": (one, other) => one.confidence - other.confidence,
  "least similar first": (one, other) => one.similarity - other.similarity,
  "most space first": (one, other) => other.frees - one.frees,
  "most photos first": (one, other) => other.photos.length - one.photos.length,
};
const field = (name) => document.getElementById(name);

export class GroupList {
  // Besides what a card needs, `review` says whether the pictures of a group are there (`hasPictures`), takes a decision
  // (`mark`), shows two photos on top of each other (`compare`, `isComparing`) and opens one (`open`).
  constructor(groups, review) {
    this.main = field("groups");
    this.review = review;
    this.groups = groups;
    this.cards = new Map(groups.map((group) => [group, cardOf(group)]));
    this.groupOf = new Map([...this.cards].map(([group, card]) => [card, group]));
    this.shown = [];
    this.current = null;
    this.watcher = new IntersectionObserver((entries) => this.drawNear(entries), { rootMargin: NEAR });
    this.listening = new AbortController();
    this.listen();
    fillChoices(groups);
    this.apply();
    this.cards.forEach((card) => this.watcher.observe(card));
  }

  // Take the list off the page, so that another can take its place.
  end() {
    this.watcher.disconnect();
    this.listening.abort();
    this.main.replaceChildren();
  }

  listen() {
    const { signal } = this.listening;
    this.main.addEventListener("click", (event) => this.click(event), { signal });
    this.main.addEventListener("pointerover", (event) => this.point(event), { signal });
    field("filters").addEventListener("input", () => this.apply(), { signal });
    field("filters").addEventListener("submit", (event) => event.preventDefault(), { signal });
  }

  // Drawing

  drawNear(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.draw(target);
      else if (!target.contains(document.activeElement)) clear(target);
    }
  }

  draw(card) {
    const group = this.groupOf.get(card);
    card.replaceChildren(...cardContent(group, this.review));
    card.style.minHeight = "";
    card.dataset.waits = this.review.hasPictures(group) ? "" : "yes";
    if (group === this.current?.group) this.showSelected();
  }

  drawWaiting() {
    for (const card of this.main.querySelectorAll('[data-waits="yes"]')) if (card.firstChild) this.draw(card);
  }

  redraw(group) {
    const card = this.cards.get(group);
    if (!card.firstChild) return;
    const focused = document.activeElement;
    const place = focused?.closest?.("figure")?.dataset.position;
    const action = card.contains(focused) ? focused.dataset.do : null;
    this.draw(card);
    const around = place === undefined ? ".title" : `figure[data-position="${place}"]`;
    if (action) card.querySelector(`${around} [data-do="${action}"]:not(.well)`)?.focus({ preventScroll: true });
  }

  // Filters

  apply() {
    const { groups } = this;
    this.shown = groups.filter(wanted(this.review)).sort(SORTS[field("sort").value]);
    const none = make("p", {}, groups.length ? "No matching groups." : "No duplicates.");
    this.main.replaceChildren(...(this.shown.length ? this.shown.map((group) => this.cards.get(group)) : [none]));
    const photos = this.shown.reduce((sum, group) => sum + group.photos.length, 0);
    const frees = this.shown.reduce((sum, group) => sum + group.frees, 0);
    const some = this.shown.length === groups.length ? "" : `${NUMBER.format(this.shown.length)} of `;
    field("count").textContent = `${some}${quantity(groups.length, "group")}, ${quantity(photos, "photo")}, ${bytesText(frees)} to free`;
    this.choose(this.shown.includes(this.current?.group) ? this.current.group : this.shown[0], this.current?.position ?? 1, false);
  }

  // The current group and duplicate

  choose(group, position = 1, isScrolled = true) {
    if (this.current) {
      this.cards.get(this.current.group).classList.remove("current");
      this.cards.get(this.current.group).removeAttribute("aria-current");
    }
    this.current = group ? { group, position: Math.min(position, group.photos.length - 1) } : null;
    if (!group) return;
    const card = this.cards.get(group);
    card.classList.add("current");
    card.setAttribute("aria-current", "true");
    if (isScrolled) {
      card.focus({ preventScroll: true });
      card.scrollIntoView({ block: "start" });
    }
    this.showSelected();
  }

  showSelected() {
    const card = this.cards.get(this.current.group);
    for (const figure of card.querySelectorAll("figure.member")) {
      figure.classList.toggle("selected", Number(figure.dataset.position) === this.current.position);
    }
    showRegion(card, this.current.position);
  }

  moveGroup(step) {
    const next = this.shown[this.shown.indexOf(this.current?.group) + step];
    if (!next) return;
    this.choose(next);
    if (this.review.isComparing()) this.review.compare(next, 1);
  }

  moveMember(step) {
    const { group, position } = this.current;
    const next = position + step;
    if (next < 1 || next >= group.photos.length) return;
    this.choose(group, next, false);
    this.cards.get(group).querySelector("figure.selected")?.scrollIntoView({ block: "nearest" });
    if (this.review.isComparing()) this.review.compare(group, next);
  }

  mark(kind, isAll = false) {
    const { group, position } = this.current;
    this.review.mark(group, isAll ? [...group.photos.keys()].slice(1) : [position], kind);
    this.redraw(group);
  }

  // What the keys do that need a current group.
  get keys() {
    const { group, position } = this.current ?? {};
    return group ? {
      j: () => this.moveGroup(1), k: () => this.moveGroup(-1),
      l: () => this.moveMember(1), ArrowRight: () => this.moveMember(1),
      h: () => this.moveMember(-1), ArrowLeft: () => this.moveMember(-1),
      f: () => this.review.compare(group, position),
      n: () => this.mark("different"), N: () => this.mark("different", true),
      y: () => this.mark("same"), Y: () => this.mark("same", true),
      p: () => this.mark("keep"),
      a: () => this.mark("both"), A: () => this.mark("both", true),
      o: () => this.review.open(group.photos[position]),
    } : {};
  }

  click(event) {
    const card = event.target.closest("article");
    if (!card) return;
    const position = Number(event.target.closest("figure")?.dataset.position || this.current?.position || 1);
    this.choose(this.groupOf.get(card), Math.max(1, position), false);
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (action === "compare") this.review.compare(this.current.group, this.current.position);
    else if (action === "all") this.mark("both", true);
    else if (action) this.mark(action);
  }

  point(event) {
    const figure = event.target.closest("figure.member");
    const card = event.target.closest("article");
    if (!card) return;
    const isCurrent = this.groupOf.get(card) === this.current?.group;
    showRegion(card, figure ? figure.dataset.position : isCurrent ? this.current.position : 0);
  }
}

function cardOf(group) {
  const card = make("article", { tabindex: "-1", "aria-label": `Group ${group.number}` });
  const across = innerWidth >= CARD.wide ? 2 : 1;
  card.style.minHeight = `${CARD.title + CARD.row * Math.ceil((group.photos.length - 1) / across)}px`;
  return card;
}

function clear(card) {
  if (!card.firstChild) return;
  card.style.minHeight = `${card.offsetHeight}px`;
  card.replaceChildren();
}

function showRegion(card, position) {
  for (const polygon of card.querySelectorAll("polygon.line")) {
    polygon.classList.toggle("strong", polygon.dataset.position === String(position));
  }
}

function fillChoices(groups) {
  const kinds = new Map();
  for (const group of groups) {
    for (const kind of new Set(group.photos.slice(1).map((member) => member.kind))) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  field("kinds-choices").replaceChildren(...[...kinds].map(([kind, count]) => make("label", {},
    make("input", { type: "checkbox", value: kind, checked: true }), ` ${kind} (${NUMBER.format(count)})`)));
  if (!field("sort").length) field("sort").append(...Object.keys(SORTS).map((name) => make("option", {}, name)));
}

function wanted(review) {
  const number = (name, otherwise) => (field(name).value === "" ? otherwise : Number(field(name).value));
  const kinds = new Set([...field("kinds").querySelectorAll(":checked")].map((box) => box.value));
  const text = field("text").value.toLowerCase();
  const [from, to, least, marked] = [number("confidence-from", 0), number("confidence-to", 100), number("least", 2), field("marked").value];
  return (group) =>
    group.photos.length >= least &&
    100 * group.confidence >= from && 100 * group.confidence <= to &&
    group.photos.some((photo) => kinds.has(photo.kind)) &&
    group.photos.some((photo) => photo.path.toLowerCase().includes(text)) &&
    (!marked || (marked === "yes") === group.photos.some((_, position) => position && review.markOf(group, position)));
}
