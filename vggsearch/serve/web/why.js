// One photo large; and, beside what it was compared with, why the two are similar.

import { bytesText, confidenceText, isRegion, make, similarityText } from "./shared/elements.js";
import { Overlay } from "./shared/overlay.js";
import { get, missing, original, thumbnail } from "./api.js";
import { announce, copyPath, element, folderOf, nameOf, oneLine, reveal, state, tellFailure } from "./page.js";
import { addPhoto, openOriginal, searchFor } from "./search.js";

const SVG = "http://www.w3.org/2000/svg";
const UNLIKE = 0.4; // cosine of two places that have nothing in common, about
const MOST_LINES = 60; // between matching points, of which more would hide the photos
const dialog = element("why");
const [first, second] = [element("why-first"), element("why-second")];
const overlay = new Overlay(element("why-stage"), element("why-under"), element("why-over"), showModes);
let shown = null; // { photo, query, facts, compared }
let stepping = () => null;
let mode = "side";

// `photo` has an id; `query`, if it was found by one, its { name, photo, address, crop }. `step` leads to the next or previous.
export async function showWhy(entry, { step }) {
  stepping = step;
  if (!dialog.open) dialog.showModal();
  state().then(({ can_reveal: canReveal }) => { element("why-reveal").hidden = !canReveal; }, tellFailure);
  await show(entry);
}

export function isWhyOpen() {
  return dialog.open;
}

async function show(entry) {
  const current = { ...entry, facts: entry.photo, compared: null };
  shown = current;
  fillPictures(current);
  fillFacts();
  choose(entry.query ? mode : "side");
  try {
    const [facts, compared] = await Promise.all([get(`/api/photos/${entry.photo.id}`), compare(entry)]);
    if (shown !== current) return;
    Object.assign(current, { facts, compared });
    fillFacts();
    choose(mode);
    announce(element("why-facts").textContent);
  } catch (error) {
    tellFailure(error);
  }
}

async function compare({ photo, query }) {
  if (!query || missing.has("compare")) return null;
  const what = query.photo ? { photo: query.photo } : { query: query.name };
  const compared = await get("/api/compare", { ...what, other: photo.id });
  return query.crop ? ofWhole(compared, query.crop) : compared;
}

// What was said of a region of the picture, as said of all of it.
function ofWhole(compared, [left, top, width, height]) {
  const keypoints = compared.keypoints.map(([x, y, ...other]) => [left + x * width, top + y * height, ...other]);
  if (!compared.corners) return { ...compared, keypoints };
  const [origin, right, , down] = compared.corners;
  const at = (x, y) => [0, 1].map((axis) => origin[axis]
    + ((x - left) / width) * (right[axis] - origin[axis]) + ((y - top) / height) * (down[axis] - origin[axis]));
  return { ...compared, keypoints, all: [at(0, 0), at(1, 0), at(1, 1), at(0, 1)] };
}

function fillPictures({ photo, query }) {
  const hasPhotos = !missing.has("photos");
  first.hidden = !query?.address;
  second.hidden = !hasPhotos;
  element("why-modes").hidden = !query || missing.has("compare");
  if (hasPhotos) picture(second, thumbnail(photo.id, 640), original(photo.id), nameOf(photo.path ?? photo.id));
  if (query?.address) picture(first, query.address, query.photo ? original(query.photo) : null, "what was searched for");
  element("why-more").hidden = element("why-minus").hidden = element("why-plus").hidden = false;
}

// First the thumbnail, then the photo itself if the browser can show it.
function picture(pane, small, large, words) {
  const image = pane.querySelector("img");
  image.src = small;
  image.alt = words;
  image.dataset.wanted = small;
  if (!large) return;
  const whole = new Image();
  whole.onload = () => {
    if (image.dataset.wanted === small && whole.naturalWidth > 1) image.src = large;
  };
  whole.src = large;
}

function fillFacts() {
  const { photo, facts, compared } = shown;
  const path = facts.path ?? photo.path ?? "";
  element("why-title").textContent = nameOf(path);
  const found = compared ?? (photo.similarity === undefined ? null : photo);
  const words = [
    found?.similarity !== undefined && found?.similarity !== null ? `similarity ${similarityText(found.similarity)}` : "",
    found?.confidence !== undefined && found?.confidence !== null ? `confidence ${confidenceText(found.confidence)}` : "",
    found?.relation ?? "",
    compared?.keypoints?.length ? `${compared.keypoints.length} matching points` : "",
  ];
  const about = [
    facts.index ? oneLine(facts.index) : "", folderOf(path), facts.width ? `${facts.width} × ${facts.height}` : "", facts.bytes ? bytesText(facts.bytes) : "",
    facts.format ?? "", facts.taken ? facts.taken.replace("T", " ").slice(0, 16) : "",
  ];
  element("why-facts").replaceChildren(...words.filter(Boolean).map((each) => make("strong", {}, each)), ...about.filter(Boolean).map((each) => make("span", {}, each)));
}

// Modes

const NEEDS = {
  heat: (compared) => Boolean(compared?.heat), flicker: (compared) => Boolean(compared?.corners), difference: (compared) => Boolean(compared?.corners),
};

function choose(wanted) {
  const isPossible = !NEEDS[wanted] || NEEDS[wanted](shown.compared);
  const isAligned = isPossible && (wanted === "flicker" || wanted === "difference");
  mode = wanted;
  element("why-pair").hidden = isAligned;
  element("why-room").hidden = !isAligned;
  overlay.blink(isAligned && wanted === "flicker");
  overlay.difference(isAligned && wanted === "difference");
  if (isAligned) layOver();
  draw(isPossible ? wanted : "side");
  showModes();
}

function showModes() {
  for (const button of element("why-modes").querySelectorAll("button")) {
    const { mode: name } = button.dataset;
    button.setAttribute("aria-pressed", String(name === mode));
    button.disabled = Boolean(NEEDS[name]) && !NEEDS[name](shown?.compared);
  }
}

// What was searched for lies in the photo: the photo is below.
function layOver() {
  const [under, over] = [element("why-under"), element("why-over")];
  under.src = second.querySelector("img").src;
  over.src = first.querySelector("img").src;
  const of = (pane) => ({ width: pane.querySelector("img").naturalWidth || 4, height: pane.querySelector("img").naturalHeight || 3 });
  element("why-stage").classList.add("has-both");
  overlay.layOut(of(second), of(first), shown.compared.all ?? shown.compared.corners);
}

function draw(what) {
  for (const pane of [first, second]) pane.querySelectorAll("svg, canvas").forEach((each) => each.remove());
  element("why-lines").replaceChildren();
  [first, second].forEach(fit);
  const { compared, photo } = shown;
  if (!shown.query) return;
  const corners = compared ? compared.corners : photo.corners;
  if (what === "heat") {
    cover(first, heatMap(compared.heat.query), shown.query.crop ?? undefined);
    cover(second, heatMap(compared.heat.photo));
  } else if (corners) {
    drawRegion(second, corners);
    if (!shown.query.crop) drawRegion(first, inverted(corners));
  }
  if (shown.query.crop) cover(first, outline(cornersOf(shown.query.crop)));
  if (what === "side" && compared?.keypoints?.length) drawLines(compared.keypoints);
}

// As large as the pane allows, also a small one: what is compared should be of one size.
function fit(pane) {
  const image = pane.querySelector("img");
  const scale = Math.min(pane.clientWidth / image.naturalWidth, pane.clientHeight / image.naturalHeight);
  if (!Number.isFinite(scale)) return;
  image.style.width = `${image.naturalWidth * scale}px`;
  image.style.height = `${image.naturalHeight * scale}px`;
}

// Lay something over the picture of a pane, or over a region of it: once the picture is there, when all is drawn again.
function cover(pane, drawn, [left, top, width, height] = [0, 0, 1, 1]) {
  const { naturalWidth, offsetLeft, offsetTop, offsetWidth, offsetHeight } = pane.querySelector("img");
  if (!naturalWidth) return;
  Object.assign(drawn.style, {
    left: `${offsetLeft + left * offsetWidth}px`, top: `${offsetTop + top * offsetHeight}px`,
    width: `${width * offsetWidth}px`, height: `${height * offsetHeight}px`,
  });
  pane.append(drawn);
}

function drawRegion(pane, corners) {
  if (isRegion({ corners })) cover(pane, outline(corners));
}

// Where the photo lies in the picture, from where the picture lies in the photo.
function inverted([origin, right, , down]) {
  const [across, along] = [right, down].map((corner) => [corner[0] - origin[0], corner[1] - origin[1]]);
  const area = across[0] * along[1] - across[1] * along[0];
  const at = (x, y) => [((x - origin[0]) * along[1] - (y - origin[1]) * along[0]) / area, ((y - origin[1]) * across[0] - (x - origin[0]) * across[1]) / area];
  return [at(0, 0), at(1, 0), at(1, 1), at(0, 1)];
}

function cornersOf([left, top, width, height]) {
  return [[left, top], [left + width, top], [left + width, top + height], [left, top + height]];
}

function svgElement(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function outline(corners) {
  const svg = svgElement("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
  const points = corners.map((corner) => corner.join(",")).join(" ");
  svg.append(svgElement("polygon", { points, class: "halo" }), svgElement("polygon", { points, class: "line" }));
  return svg;
}

function drawLines(keypoints) {
  const svg = element("why-lines");
  const around = svg.getBoundingClientRect();
  const [from, to] = [first, second].map((pane) => pane.querySelector("img").getBoundingClientRect());
  svg.setAttribute("viewBox", `0 0 ${around.width} ${around.height}`);
  const at = (box, x, y) => [box.left - around.left + x * box.width, box.top - around.top + y * box.height];
  const every = Math.ceil(keypoints.length / MOST_LINES);
  for (const [x, y, otherX, otherY] of keypoints.filter((_, number) => number % every === 0)) {
    const [[x1, y1], [x2, y2]] = [at(from, x, y), at(to, otherX, otherY)];
    svg.append(svgElement("line", { x1, y1, x2, y2 }), svgElement("circle", { cx: x1, cy: y1, r: 3 }), svgElement("circle", { cx: x2, cy: y2, r: 3 }));
  }
}

// Dark where the two do not agree, clear where they do. The values are in 0..1, row by row.
function heatMap({ rows, columns, values }) {
  const canvas = make("canvas", { width: columns, height: rows, "aria-hidden": "true" });
  const pixels = new ImageData(columns, rows);
  values.forEach((value, place) => {
    const alike = Math.min(1, Math.max(0, (value - UNLIKE) / (1 - UNLIKE)));
    pixels.data.set([10, 18, 60, 240 * (1 - alike) ** 0.7], 4 * place);
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

// Keys and buttons

const ACTIONS = {
  previous: () => move(-1), next: () => move(1),
  more: () => leave(() => searchFor(shown.photo.id)),
  plus: () => leave(() => addPhoto(shown.photo.id, false)),
  minus: () => leave(() => addPhoto(shown.photo.id, true)),
  open: () => openOriginal(shown.photo.id),
  reveal: () => reveal(shown.photo).catch(tellFailure),
  copy: () => copyPath(shown.facts.path ? shown.facts : shown.photo),
  close: () => dialog.close(),
};
const KEYS = {
  ArrowLeft: "previous", ArrowRight: "next", k: "previous", j: "next", m: "more", "+": "plus", "-": "minus", o: "open", e: "reveal", c: "copy",
};
const MODES = { 1: "side", 2: "heat", 3: "flicker", 4: "difference" };

function leave(action) {
  dialog.close();
  action();
}

function move(by) {
  const next = stepping(by);
  if (next) show(next).catch(tellFailure);
}

dialog.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (button?.dataset.mode) choose(button.dataset.mode);
  else if (button) ACTIONS[button.dataset.action]?.();
});
dialog.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isMode = MODES[event.key] && shown?.query && !missing.has("compare") && (!NEEDS[MODES[event.key]] || NEEDS[MODES[event.key]](shown.compared));
  if (!KEYS[event.key] && !isMode) return;
  event.preventDefault();
  event.stopPropagation();
  if (isMode) choose(MODES[event.key]);
  else ACTIONS[KEYS[event.key]]();
});
dialog.addEventListener("close", () => overlay.blink(false));
addEventListener("resize", () => dialog.open && shown && choose(mode));
for (const pane of [first, second]) pane.querySelector("img").addEventListener("load", () => dialog.open && choose(mode));
