// The view of a search: what is searched for, filters, and the photos found.

import { NUMBER, isRegion, make, quantity, regionsDrawn, similarityText } from "./shared/elements.js";
import { get, missing, original, pathOf, thumbnail } from "./api.js";
import { Grid } from "./grid.js";
import { chosenFilters, showFilters } from "./filters.js";
import { announce, copyPath, element, nameOf, notify, oneLine, reveal, tellFailure } from "./page.js";
import { addressOf, emptyQuery, glance, hashOf, isRegionPossible, queryOf, search, searchMore } from "./query.js";
import { RegionPicker } from "./region.js";
import { showWhy } from "./why.js";

const CAPTION = 42; // pixels below a photo
const NAMED_ASPECT = 4; // width by height of a name in place of a picture
const STARTERS = { asked: 600, shown: 48 }; // photos of the index that a search can start from, taken from the newest
const IMAGES = /^image\/|\.(heic|heif|avif|jxl|tiff?|dng|cr2|cr3|nef|arw|raf|orf|rw2)$/i;

let query = emptyQuery();
let matches = [];
let total = 0;
let running = null;
let isMoreAsked = false;
const grid = new Grid(element("results"), {
  label: "Photos found", caption: CAPTION, onOpen: openMatch, onNear: more,
  onKey: (key, index) => onPhotoKey(key, matches[index]),
});
const starters = new Grid(element("starters"), {
  label: "Photos to start from", onOpen: (index) => searchFor(starting.ids[index]),
  onKey: (key, index) => onPhotoKey(key, { id: starting.ids[index] }),
});
let starting = { ids: [] };
const picker = new RegionPicker(element("query-frame"), (region) => change({ crop: region }));

// Every view lets a photo be searched for, added or subtracted with these keys.
export function onPhotoKey(key, photo) {
  const actions = {
    m: () => searchFor(photo.id),
    "+": () => addPhoto(photo.id, false),
    "-": () => addPhoto(photo.id, true),
    o: () => openOriginal(photo.id),
    e: () => reveal(photo).catch(tellFailure),
    c: () => withPath(photo).then(copyPath).catch(tellFailure),
  };
  actions[key]?.();
  return key in actions;
}

export function openOriginal(id) {
  if (missing.has("photos")) notify("This server has no photos, only what is published of them.", true);
  else open(original(id), "_blank", "noopener");
}

async function withPath(photo) {
  return photo.path ? photo : get(`/api/photos/${photo.id}`);
}

export function searchFor(...ids) {
  query = { ...emptyQuery(), filters: query.filters, pictures: ids.map((id) => ({ id })) };
  run();
}

export function addPhoto(id, isMinus) {
  change({ pictures: [...query.pictures.filter((picture) => picture.id !== id), { id, isMinus }], crop: null });
}

export function addFiles(files) {
  const pictures = picturesIn(files);
  if (!pictures.length) return;
  query = { ...emptyQuery(), filters: query.filters, pictures };
  run();
}

function picturesIn(files) {
  const pictures = [...files].filter(({ type, name }) => IMAGES.test(type) || IMAGES.test(name)).map((file) => ({ file }));
  if (pictures.length < files.length) notify(files.length > 1 ? "Some of these are no pictures." : "This is no picture.", true);
  return pictures;
}

function change(changes) {
  query = { ...query, ...changes };
  if (query.pictures.length) run();
  else clear();
}

function clear() {
  running?.abort();
  query = emptyQuery();
  location.hash = "#search";
}

// Show what a link names; called whenever the hash becomes that of this view.
export async function openSearch(given) {
  try {
    if (given.size && `#search?${given}` === hashOf(query) && matches.length) return;
    const { query: wanted, answer } = await queryOf(given);
    query = wanted;
    if (answer) {
      showFilters(query.filters);
      show(answer);
    } else if (query.pictures.some(({ isMinus }) => !isMinus)) await run(false);
    else showStart();
  } catch (error) {
    query = emptyQuery();
    showStart();
    tellFailure(error);
  }
}

// Searching

async function run(isRecorded = true) {
  running?.abort();
  running = new AbortController();
  if (!query.pictures.some(({ isMinus }) => !isMinus)) return tellFailure(new Error("Add a picture to search for first."));
  document.dispatchEvent(new CustomEvent("viewchange", { detail: "search" }));
  showQuery();
  showFilters(query.filters);
  element("view-search").setAttribute("aria-busy", "true");
  if (isRecorded) scrollTo(0, 0);
  element("count-found").textContent = "Searching…";
  const { signal } = running;
  let isAnswered = false;
  if (!query.isInside && !missing.has("rerank")) glance(query, signal).then((answer) => isAnswered || signal.aborted || show(answer, true), () => {});
  try {
    const answer = await search(query, signal);
    isAnswered = true;
    if (isRecorded && location.hash !== hashOf(query)) history.pushState(null, "", hashOf(query));
    show(answer);
  } catch (error) {
    isAnswered = true;
    if (error.name === "AbortError") return undefined;
    matches = []; // those of the search before would look like the answer
    total = 0;
    grid.show(photosOf());
    element("count-found").textContent = error.message;
    tellFailure(error);
  }
  element("view-search").removeAttribute("aria-busy");
  return undefined;
}

// `isFirst` is for what was found at a glance: the answer itself is on its way.
function show(answer, isFirst = false) {
  const focused = element("results").contains(document.activeElement) ? matches[grid.active]?.id : null;
  matches = answer.matches;
  total = isFirst ? matches.length : answer.total;
  showQuery();
  grid.show(photosOf());
  const place = focused ? matches.findIndex(({ id }) => id === focused) : -1;
  if (place >= 0) grid.activate(place);
  if (isFirst) return;
  const copies = matches.filter(({ relation }) => relation).length;
  const words = copies ? `, ${quantity(copies, "copy", "copies")} or parts among the first ${NUMBER.format(matches.length)}` : "";
  element("count-found").textContent = `${quantity(total, "photo")} by similarity${words}`;
  announce(`${quantity(total, "photo")} found${words}. The most similar is ${matches.length ? oneLine(matches[0].path) : "none"}.`);
}

async function more() {
  if (isMoreAsked || matches.length >= total || !matches.length) return;
  isMoreAsked = true;
  const asked = query;
  try {
    const answer = await searchMore(asked, matches.length);
    if (asked === query && answer.matches.length) {
      matches = [...matches, ...answer.matches];
      grid.photos = photosOf();
      grid.grow();
    } else {
      total = asked === query ? matches.length : total;
    }
  } catch (error) {
    total = matches.length;
    tellFailure(error);
  }
  isMoreAsked = false;
}

function photosOf() {
  return {
    count: matches.length,
    aspect: (index) => aspectOf(matches[index]),
    sections: [],
    picture: (index, pixels) => thumbnail(matches[index].id, pixels),
    name: (index) => textFor(matches[index].path),
    decorate: (tile, index) => decorate(tile, matches[index]),
  };
}

// In place of a picture that cannot be shown, all of its path.
function textFor(path) {
  return missing.has("photos") ? oneLine(path) : nameOf(path);
}

export function aspectOf({ width, height }) {
  if (missing.has("photos")) return NAMED_ASPECT;
  return width && height ? Math.min(3.2, Math.max(0.5, width / height)) : 4 / 3;
}

function decorate(tile, match) {
  const button = tile.firstChild;
  const isWhole = aspectOf(match) === match.width / match.height;
  if (match.corners && isRegion(match) && isWhole) button.firstChild.append(regionsDrawn([{ corners: match.corners, position: 1 }]));
  button.append(make("span", { class: "caption" },
    make("span", { class: "similarity", title: "Similarity" }, similarityText(match.similarity)),
    match.relation ? make("span", { class: "relation" }, match.relation) : null,
    make("span", { class: "where", title: oneLine(match.path) }, nameOf(match.path))));
  tile.append(againButton(match.id));
}

// For the pointer; on a photo that has the focus, the key m does the same.
export function againButton(id) {
  const again = make("button", { type: "button", class: "again", tabindex: "-1", title: "Search for photos like this one (m)" }, "More like this");
  again.addEventListener("click", () => searchFor(id));
  return again;
}

function openMatch(index) {
  const entry = (place) => ({ photo: matches[place], query: comparable() });
  showWhy(entry(index), {
    step: (by) => {
      const next = index + by;
      if (next < 0 || next >= matches.length) return null;
      index = next;
      grid.activate(index);
      return entry(index);
    },
  });
}

// What a match is compared with: the first picture that is searched for.
function comparable() {
  const picture = query.pictures.find(({ isMinus }) => !isMinus);
  const [only] = query.pictures.length === 1 && picture.id && !query.crop ? [picture.id] : [];
  return { name: query.name, photo: only, address: addressOf(picture), crop: query.crop };
}

// The query

function showQuery() {
  element("search-start").hidden = true;
  element("search-found").hidden = false;
  const [first] = query.pictures;
  const isSingle = isRegionPossible(query);
  element("query-single").hidden = !isSingle;
  if (isSingle) {
    const image = element("query-image");
    if (image.getAttribute("src") !== addressOf(first)) image.src = addressOf(first);
    picker.show(query.crop);
  }
  element("query-whole").hidden = !query.crop;
  element("query-region").hidden = !isSingle;
  element("query-chips").replaceChildren(...query.pictures.map(chip));
  element("query-chips").hidden = isSingle;
  element("inside").checked = query.isInside;
}

function chip(picture, position) {
  const kind = picture.isMinus ? "minus" : "plus";
  const address = addressOf(picture, 160);
  const shown = address ? make("img", { src: address, alt: `picture ${position + 1}` }) : make("span", { class: "named" }, oneLine(pathOf(picture.id)));
  const turn = make("button", { type: "button", class: "sign", title: "Add or subtract", "aria-label": `Picture ${position + 1}: ${picture.isMinus ? "subtracted" : "added"}` }, picture.isMinus ? "−" : "+");
  turn.addEventListener("click", () => change({ pictures: query.pictures.map((each) => (each === picture ? { ...each, isMinus: !each.isMinus } : each)) }));
  const drop = make("button", { type: "button", class: "drop", "aria-label": `Remove picture ${position + 1}` }, "×");
  drop.addEventListener("click", () => change({ pictures: query.pictures.filter((each) => each !== picture) }));
  return make("li", { class: kind }, shown, turn, drop);
}

function addToQuery(files) {
  const pictures = picturesIn(files);
  if (pictures.length) change({ pictures: [...query.pictures, ...pictures], crop: null });
}

// The start

async function showStart() {
  running?.abort();
  matches = [];
  element("search-start").hidden = false;
  element("search-found").hidden = true;
  if (missing.has("list")) return undefined;
  if (starting.ids.length) return starters.layOut();
  const { photos: newest } = await get("/api/photos", { order: "taken", count: STARTERS.asked });
  const every = Math.max(1, newest.length / STARTERS.shown);
  const photos = newest.filter((_, number) => Math.floor(number / every) !== Math.floor((number - 1) / every));
  starting = { ids: photos.map(({ id }) => id), photos };
  element("start-from").hidden = !starting.ids.length;
  starters.show({
    count: starting.ids.length,
    aspect: (index) => aspectOf(starting.photos[index]),
    sections: [],
    picture: (index, pixels) => thumbnail(starting.ids[index], pixels),
    name: (index) => textFor(starting.photos[index].path),
  });
  return undefined;
}

// Choosing, dropping and pasting

function takeChosen(input, take) {
  element(input).addEventListener("change", ({ target }) => {
    take(target.files);
    target.value = "";
  });
}

takeChosen("choose", addFiles);
takeChosen("choose-another", addToQuery);
for (const [button, input] of [["choose-button", "choose"], ["query-new", "choose"], ["query-add", "choose-another"]]) {
  element(button).addEventListener("click", () => element(input).click());
}
element("query-clear").addEventListener("click", clear);
element("query-whole").addEventListener("click", () => change({ crop: null }));
element("query-region").addEventListener("click", openRegion);
element("search-filters").addEventListener("submit", (event) => event.preventDefault());
element("search-filters").addEventListener("change", () => change({ filters: chosenFilters(), isInside: element("inside").checked }));
element("clear-filters").addEventListener("click", () => change({ filters: {} }));

// The region in per cent, for the keyboard.

const SIDES = ["left", "top", "width", "height"];

export function openRegion() {
  if (!isRegionPossible(query) || element("search-found").hidden) return;
  const region = query.crop ?? [0.25, 0.25, 0.5, 0.5];
  SIDES.forEach((side, axis) => { element(`region-${side}`).value = Math.round(100 * region[axis]); });
  picker.show(region);
  element("region").showModal();
}

element("region").addEventListener("input", () => picker.show(regionTyped()));
element("region").addEventListener("close", () => {
  if (element("region").returnValue === "search") change({ crop: regionTyped() });
  else picker.show(query.crop);
  element("region").returnValue = "";
});

function regionTyped() {
  const [left, top, width, height] = SIDES.map((side) => Math.min(100, Math.max(0, Number(element(`region-${side}`).value))) / 100);
  return [Math.min(left, 0.99), Math.min(top, 0.99), Math.max(0.01, Math.min(width, 1 - left)), Math.max(0.01, Math.min(height, 1 - top))];
}

let dragged = 0;
addEventListener("dragenter", (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  dragged += 1;
  element("dropping").hidden = false;
});
addEventListener("dragleave", () => {
  dragged = Math.max(0, dragged - 1);
  element("dropping").hidden = dragged === 0;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  dragged = 0;
  element("dropping").hidden = true;
  addFiles(event.dataTransfer.files);
});
addEventListener("paste", (event) => {
  if (event.target.closest("input:not([type=file]), textarea") || !event.clipboardData.files.length) return;
  event.preventDefault();
  addFiles(event.clipboardData.files);
});
