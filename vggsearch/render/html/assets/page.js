// The list: which groups, in which order, drawn only near the viewport; and the keyboard shortcuts.

const NEAR = "150% 0px"; // how far from the viewport a group is drawn
const CARD = { title: 60, row: 212, wide: 1500 }; // pixels, roughly: the size of a card before it is drawn
const SORTS = {
  "as listed": (one, other) => one.number - other.number,
  "least certain first": (one, other) => one.confidence - other.confidence,
  "least similar first": (one, other) => one.similarity - other.similarity,
  "most space first": (one, other) => other.frees - one.frees,
  "most photos first": (one, other) => other.photos.length - one.photos.length,
};
const main = document.getElementById("groups");
const field = (name) => document.getElementById(name);
const cards = new Map(groups.map((group) => [group, cardOf(group)]));
const groupOf = new Map([...cards].map(([group, card]) => [card, group]));
let shown = [];
let current = null;

function cardOf(group) {
  const card = make("article", { tabindex: "-1", "aria-label": `Group ${group.number}` });
  const across = innerWidth >= CARD.wide ? 2 : 1;
  card.style.minHeight = `${CARD.title + CARD.row * Math.ceil((group.photos.length - 1) / across)}px`;
  return card;
}

// Drawing

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) draw(target);
    else if (!target.contains(document.activeElement)) clear(target);
  }
}, { rootMargin: NEAR });

function draw(card) {
  const group = groupOf.get(card);
  card.replaceChildren(...cardContent(group));
  card.style.minHeight = "";
  card.dataset.waits = hasPictures(group) ? "" : "yes";
  if (group === current?.group) showSelected();
}

function clear(card) {
  if (!card.firstChild) return;
  card.style.minHeight = `${card.offsetHeight}px`;
  card.replaceChildren();
}

function drawWaiting() {
  for (const card of main.querySelectorAll('[data-waits="yes"]')) if (card.firstChild) draw(card);
}

function redraw(group) {
  const card = cards.get(group);
  if (!card.firstChild) return;
  const focused = document.activeElement;
  const place = focused?.closest?.("figure")?.dataset.position;
  const action = card.contains(focused) ? focused.dataset.do : null;
  draw(card);
  const around = place === undefined ? ".title" : `figure[data-position="${place}"]`;
  if (action) card.querySelector(`${around} [data-do="${action}"]:not(.well)`)?.focus({ preventScroll: true });
}

// Filters

function fillChoices() {
  const kinds = new Map();
  for (const group of groups) {
    for (const kind of new Set(group.photos.slice(1).map((member) => member.kind))) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  for (const [kind, count] of kinds) {
    field("kinds-choices").append(make("label", {},
      make("input", { type: "checkbox", value: kind, checked: true }), ` ${kind} (${NUMBER.format(count)})`));
  }
  field("sort").append(...Object.keys(SORTS).map((name) => make("option", {}, name)));
}

function wanted() {
  const number = (name, otherwise) => (field(name).value === "" ? otherwise : Number(field(name).value));
  const kinds = new Set([...field("kinds").querySelectorAll(":checked")].map((box) => box.value));
  const text = field("text").value.toLowerCase();
  const [from, to, least, marked] = [number("confidence-from", 0), number("confidence-to", 100), number("least", 2), field("marked").value];
  return (group) =>
    group.photos.length >= least &&
    100 * group.confidence >= from && 100 * group.confidence <= to &&
    group.photos.some((photo) => kinds.has(photo.kind)) &&
    group.photos.some((photo) => photo.path.toLowerCase().includes(text)) &&
    (!marked || (marked === "yes") === group.photos.some((_, position) => position && markOf(group, position)));
}

function apply() {
  shown = groups.filter(wanted()).sort(SORTS[field("sort").value]);
  main.replaceChildren(...(shown.length ? shown.map((group) => cards.get(group)) : [make("p", {}, groups.length ? "No matching groups." : "No duplicates.")]));
  const photos = shown.reduce((sum, group) => sum + group.photos.length, 0);
  const frees = shown.reduce((sum, group) => sum + group.frees, 0);
  const some = shown.length === groups.length ? "" : `${NUMBER.format(shown.length)} of `;
  field("count").textContent = `${some}${quantity(groups.length, "group")}, ${quantity(photos, "photo")}, ${bytesText(frees)} to free`;
  choose(shown.includes(current?.group) ? current.group : shown[0], current?.position ?? 1, false);
}

// The current group and duplicate

function choose(group, position = 1, isScrolled = true) {
  if (current) {
    cards.get(current.group).classList.remove("current");
    cards.get(current.group).removeAttribute("aria-current");
  }
  current = group ? { group, position: Math.min(position, group.photos.length - 1) } : null;
  if (!group) return;
  const card = cards.get(group);
  card.classList.add("current");
  card.setAttribute("aria-current", "true");
  if (isScrolled) {
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "start" });
  }
  showSelected();
}

function showSelected() {
  const card = cards.get(current.group);
  for (const figure of card.querySelectorAll("figure.member")) {
    figure.classList.toggle("selected", Number(figure.dataset.position) === current.position);
  }
  showRegion(card, current.position);
}

function showRegion(card, position) {
  for (const polygon of card.querySelectorAll("polygon.line")) {
    polygon.classList.toggle("strong", polygon.dataset.position === String(position));
  }
}

function moveGroup(step) {
  const next = shown[shown.indexOf(current?.group) + step];
  if (!next) return;
  choose(next);
  if (compareDialog.open) openCompare(next, 1);
}

function moveMember(step) {
  const position = current.position + step;
  if (position < 1 || position >= current.group.photos.length) return;
  choose(current.group, position, false);
  cards.get(current.group).querySelector("figure.selected")?.scrollIntoView({ block: "nearest" });
  if (compareDialog.open) openCompare(current.group, position);
}

function markCurrent(kind, isAll) {
  const members = current.group.photos.keys();
  mark(current.group, isAll ? [...members].slice(1) : [current.position], kind);
  redraw(current.group);
  if (compareDialog.open) showCaption();
}

// Keys and clicks

const KEYS = {
  j: () => moveGroup(1), k: () => moveGroup(-1),
  l: () => moveMember(1), ArrowRight: () => moveMember(1),
  h: () => moveMember(-1), ArrowLeft: () => moveMember(-1),
  f: () => (compareDialog.open ? flip() : openCompare(current.group, current.position)),
  b: () => compareDialog.open && blink(), d: () => compareDialog.open && difference(),
  n: () => markCurrent("different", false), N: () => markCurrent("different", true),
  y: () => markCurrent("same", false), Y: () => markCurrent("same", true),
  p: () => markCurrent("keep", false),
  a: () => markCurrent("both", false), A: () => markCurrent("both", true),
  o: () => open(current.group.photos[current.position].link, "_blank", "noopener"),
  c: () => showCommands(shown),
  "?": () => field("help").showModal(),
  "/": () => field("text").focus(),
};
const WITHOUT_GROUPS = new Set(["c", "?", "/"]);

function press(key) {
  if (KEYS[key] && (current || WITHOUT_GROUPS.has(key))) KEYS[key]();
}

addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, select, textarea");
  const isElsewhere = field("help").open || field("commands").open;
  if (event.ctrlKey || event.metaKey || event.altKey || isElsewhere) return;
  if (isTyping) {
    if (event.key === "Escape") leave(event);
    return;
  }
  const isFlip = event.key === " " && !event.target.closest("button, a");
  const key = isFlip ? "f" : event.key;
  if (!KEYS[key]) return;
  event.preventDefault();
  press(key);
});

// Escape empties the field for paths with its filter, then leaves it. A browser would empty the field alone.
function leave(event) {
  event.preventDefault();
  if (event.target === field("text") && event.target.value) {
    event.target.value = "";
    apply();
  } else {
    event.target.blur();
  }
}

const ACTIONS = {
  compare: () => openCompare(current.group, current.position),
  different: () => markCurrent("different", false),
  same: () => markCurrent("same", false),
  keep: () => markCurrent("keep", false),
  both: () => markCurrent("both", false),
  all: () => markCurrent("both", true),
};

main.addEventListener("click", (event) => {
  const card = event.target.closest("article");
  if (!card) return;
  const position = Number(event.target.closest("figure")?.dataset.position || current?.position || 1);
  choose(groupOf.get(card), Math.max(1, position), false);
  const action = event.target.closest("[data-do]")?.dataset.do;
  if (action) ACTIONS[action]();
});

main.addEventListener("pointerover", (event) => {
  const figure = event.target.closest("figure.member");
  const card = event.target.closest("article");
  if (card) showRegion(card, figure ? figure.dataset.position : groupOf.get(card) === current?.group ? current.position : 0);
});

compareDialog.addEventListener("click", (event) => {
  const key = event.target.closest("[data-key]")?.dataset.key;
  if (key === "Escape") compareDialog.close();
  else if (key) press(key);
  else if (event.target.closest(".room")) flip();
});

field("filters").addEventListener("input", apply);
field("filters").addEventListener("submit", (event) => event.preventDefault());
field("open-help").addEventListener("click", () => field("help").showModal());
for (const button of document.querySelectorAll(".show-commands")) button.addEventListener("click", () => showCommands(shown));
field("copy").addEventListener("click", () => copyText("commands-text"));
field("copy-removal").addEventListener("click", () => copyText("removal-text"));
field("clear-marks").addEventListener("click", () => {
  clearMarks();
  groups.forEach(redraw);
});
for (const button of document.querySelectorAll("dialog .close")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}

new ResizeObserver(() => {
  const bar = getComputedStyle(field("filters")).position === "sticky" ? field("filters").offsetHeight : 0;
  document.documentElement.style.setProperty("--bar", `${bar}px`);
}).observe(field("filters"));

fillChoices();
apply();
showTray();
cards.forEach((card) => watcher.observe(card));
const reading = setInterval(drawWaiting, 300);
addEventListener("DOMContentLoaded", () => {
  clearInterval(reading);
  drawWaiting();
});
