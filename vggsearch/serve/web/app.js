// Which view is shown, and the keys that work in all of them.

import { leaveField } from "./shared/elements.js";
import { missing } from "./api.js";
import { openBrowse } from "./browse.js";
import { duplicateKeys, openDuplicates } from "./duplicates.js";
import { openMap } from "./map.js";
import { element, tellFailure } from "./page.js";
import { openRegion, openSearch } from "./search.js";
import { openState } from "./state.js";

const EVERY_VIEW = { search: openSearch, browse: openBrowse, duplicates: openDuplicates, state: openState, map: openMap };
const NEEDS = { browse: "list", duplicates: "duplicates", map: "map" };
const VIEWS = Object.fromEntries(Object.entries(EVERY_VIEW).filter(([name]) => !missing.has(NEEDS[name])));
const TITLES = { search: "Search", browse: "Browse", duplicates: "Duplicates", state: "State", map: "Map" };
const FIRST_FIELDS = { search: "#choose-button, #query-new", browse: "#browse-folder", duplicates: "#text", state: "#indexes button", map: "#map-canvas" };
const scrolled = {}; // how far each view was scrolled
let current = null;

function viewOf(hash) {
  const [name, given] = hash.replace(/^#/, "").split("?");
  return [Object.hasOwn(VIEWS, name) ? name : "search", new URLSearchParams(given ?? "")];
}

function linkTo(name) {
  return element("views").querySelector(`[data-view="${name}"]`);
}

// `left` is the hash of the view that is left: its link leads back to where it was.
function reveal(name, left) {
  if (current === name) return;
  if (current) scrolled[current] = scrollY;
  if (current && viewOf(left)[0] === current) linkTo(current).href = left || `#${current}`;
  current = name;
  for (const view of Object.keys(VIEWS)) element(`view-${view}`).hidden = view !== name;
  for (const link of element("views").querySelectorAll("a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TITLES[name]} · vggsearch`;
  requestAnimationFrame(() => scrollTo(0, scrolled[name] ?? 0));
}

// At once, not when the hash has changed: the next key is one of the new view.
function goTo(name) {
  const left = location.hash;
  linkTo(name).click();
  reveal(name, left);
}

function route(event) {
  const [name, given] = viewOf(location.hash);
  reveal(name, event ? new URL(event.oldURL).hash : "");
  Promise.resolve(VIEWS[name](given)).catch(tellFailure);
}

// Keys

const always = {
  ...Object.fromEntries(Object.keys(EVERY_VIEW).map((name, number) => [number + 1, () => Object.hasOwn(VIEWS, name) && goTo(name)])),
  "?": () => element("help").showModal(),
  "/": () => [...document.querySelectorAll(FIRST_FIELDS[current])].find((each) => each.checkVisibility())?.focus(),
};
const ofView = { search: () => ({ r: openRegion }), browse: () => ({}), duplicates: duplicateKeys, state: () => ({}), map: () => ({}) };

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, select, textarea")) {
    if (event.key === "Escape") leaveField(event);
    return;
  }
  const isButton = event.target.closest("button, a");
  const key = event.key === " " && !isButton ? "f" : event.key;
  const action = { ...always, ...ofView[current]() }[key];
  if (!action || (isButton && (key === "Enter" || key === " "))) return;
  event.preventDefault();
  action();
});

element("open-help").addEventListener("click", () => element("help").showModal());
element("skip").addEventListener("click", (event) => {
  event.preventDefault();
  element("main").focus();
});
for (const button of document.querySelectorAll("dialog .close")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
new ResizeObserver(([{ target }]) => document.documentElement.style.setProperty("--top", `${target.offsetHeight}px`)).observe(element("top"));
document.addEventListener("viewchange", ({ detail }) => reveal(detail, location.hash));
addEventListener("hashchange", route);
history.scrollRestoration = "manual";
route();
