// The view of all photos: by time or by folder.

import { NUMBER, quantity } from "./shared/elements.js";
import { get, missing, pathOf, thumbnail } from "./api.js";
import { Grid } from "./grid.js";
import { fill } from "./filters.js";
import { announce, element, oneLine, tellFailure } from "./page.js";
import { againButton, aspectOf, onPhotoKey } from "./search.js";
import { showWhy } from "./why.js";

const MONTH = new Intl.DateTimeFormat("en", { month: "long", year: "numeric", timeZone: "UTC" });
let columns = { ids: [], aspect: [], months: [] };
let shownFor = null;
const grid = new Grid(element("photos"), {
  label: "Photos", onOpen: openPhoto, onKey: (key, index) => onPhotoKey(key, { id: columns.ids[index] }),
});

export async function openBrowse(given) {
  const wanted = { order: given.get("order") === "path" ? "path" : "taken", folder: given.get("folder") ?? "" };
  const key = JSON.stringify(wanted);
  if (key === shownFor) return grid.layOut();
  shownFor = key;
  element("count-photos").textContent = "Loading…";
  try {
    const [found, { folders }] = await Promise.all([get("/api/browse", wanted), get("/api/counts")]);
    if (key !== shownFor) return undefined;
    columns = found;
    show(wanted, folders);
  } catch (error) {
    shownFor = null;
    element("count-photos").textContent = error.message;
    tellFailure(error);
  }
  return undefined;
}

export function forgetPhotos() {
  shownFor = null;
}

function show({ order, folder }, folders) {
  const sections = columns.months.map(({ label, start }) => ({ label: labelOf(label, order), start }));
  element("order-taken").setAttribute("aria-pressed", String(order === "taken"));
  element("order-path").setAttribute("aria-pressed", String(order === "path"));
  fill("browse-folder", "All folders", folders.map(({ path, count }) => [path, `${oneLine(path)} (${NUMBER.format(count)})`]), folder);
  fill("jump", order === "taken" ? "Go to a month" : "Go to a folder", sections.map(({ label, start }) => [start, label]));
  element("jump").hidden = sections.length < 2;
  grid.show({
    count: columns.ids.length,
    aspect: (index) => aspectOf({ width: columns.aspect[index] || 1, height: 1 }),
    sections,
    picture: (index, pixels) => thumbnail(columns.ids[index], pixels),
    decorate: (tile, index) => tile.append(againButton(columns.ids[index])),
    name: nameAt,
  });
  const words = quantity(columns.total, "photo");
  element("count-photos").textContent = words;
  announce(words);
}

function nameAt(index) {
  if (missing.has("photos")) return oneLine(pathOf(columns.ids[index]));
  return `photo ${NUMBER.format(index + 1)} of ${NUMBER.format(columns.ids.length)}`;
}

function labelOf(label, order) {
  if (order === "path") return label ? oneLine(label) : "Top folder";
  return label ? MONTH.format(new Date(`${label}-01T00:00:00Z`)) : "Time unknown";
}

function openPhoto(index) {
  const entry = () => ({ photo: { id: columns.ids[index] }, query: null });
  showWhy(entry(), {
    step: (by) => {
      if (index + by < 0 || index + by >= columns.ids.length) return null;
      index += by;
      grid.activate(index);
      return entry();
    },
  });
}

function go(changes) {
  const given = new URLSearchParams(location.hash.split("?")[1] ?? "");
  for (const [name, value] of Object.entries(changes)) {
    if (value) given.set(name, value);
    else given.delete(name);
  }
  location.hash = given.size ? `#browse?${given}` : "#browse";
}

element("order-taken").addEventListener("click", () => go({ order: "" }));
element("order-path").addEventListener("click", () => go({ order: "path" }));
element("browse-folder").addEventListener("change", ({ target }) => go({ folder: target.value }));
element("jump").addEventListener("change", ({ target }) => {
  if (target.value === "") return;
  grid.scrollToPhoto(Number(target.value));
  target.value = "";
});
