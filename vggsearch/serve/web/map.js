// The view of all photos as a map: similar ones lie near each other. Zoom, pan, and draw around photos to select them.

import { NUMBER, quantity } from "./shared/elements.js";
import { get, thumbnail } from "./api.js";
import { Grid } from "./grid.js";
import { announce, element, tellFailure, watchJob } from "./page.js";
import { onPhotoKey, searchFor } from "./search.js";
import { showWhy } from "./why.js";

const PICTURE = 56; // pixels of a thumbnail on the map, one of which is drawn where there is room
const MARGIN = 40; // pixels around the map at first
const ZOOM = { least: 0.5, most: 400, step: 1.25 };
const MOST_SEARCHED = 16; // photos that one search takes
const MOST_PICTURES = 3000; // that are kept
const canvas = element("map-canvas");
const pen = canvas.getContext("2d");
const pictures = new Map(); // images by id, the latest last
let photos = { ids: [], x: [], y: [] };
let view = { scale: 1, left: 0, top: 0 };
let selected = [];
let lasso = null;
let dragged = null;
let placed = []; // what is drawn as a picture: [index, x, y]
const grid = new Grid(element("map-selected"), {
  label: "Selected photos", onOpen: openSelected, onKey: (key, index) => onPhotoKey(key, { id: photos.ids[selected[index]] }),
});

export async function openMap() {
  if (photos.ids.length) return resize();
  try {
    let answer = await get("/api/map");
    while (answer.status === 202) {
      await watchJob(element("map-job"), answer.job, "Making the map");
      answer = await get("/api/map");
    }
    photos = answer;
    announce(`A map of ${quantity(photos.ids.length, "photo")}`);
    home();
  } catch (error) {
    element("map-job").textContent = error.message;
    tellFailure(error);
  }
  return undefined;
}

export function forgetMap() {
  photos = { ids: [], x: [], y: [] };
  select([]);
}

// Drawing

function resize() {
  const { clientWidth: width, clientHeight: height } = canvas;
  [canvas.width, canvas.height] = [width * devicePixelRatio, height * devicePixelRatio];
  draw();
}

function home() {
  view = { scale: 1, left: 0, top: 0 };
  resize();
}

function unit() {
  return { width: canvas.clientWidth - 2 * MARGIN, height: canvas.clientHeight - 2 * MARGIN };
}

function onScreen(index) {
  const { width, height } = unit();
  return [MARGIN + view.left + photos.x[index] * width * view.scale, MARGIN + view.top + photos.y[index] * height * view.scale];
}

let isWaiting = false;

function draw() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    drawNow();
  });
}

function drawNow() {
  const style = getComputedStyle(canvas);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const taken = new Set();
  const isSelected = new Set(selected);
  placed = [];
  const [plain, chosen] = ["--dim", "--accent"].map((name) => style.getPropertyValue(name));
  photos.ids.forEach((id, index) => {
    const [x, y] = onScreen(index);
    if (x < -PICTURE || y < -PICTURE || x > width + PICTURE || y > height + PICTURE) return;
    const cells = [0, 1].flatMap((across) => [0, 1].map((down) => `${Math.floor(x / PICTURE) + across} ${Math.floor(y / PICTURE) + down}`));
    pen.fillStyle = isSelected.has(index) ? chosen : plain;
    if (taken.has(cells[0])) pen.fillRect(x - 1.5, y - 1.5, 3, 3);
    else placed.push([index, x, y]);
    cells.forEach((cell) => taken.add(cell));
  });
  pen.fillStyle = plain;
  for (const [index, x, y] of placed) drawPicture(index, x, y);
  pen.strokeStyle = chosen;
  pen.lineWidth = 3;
  for (const [index, x, y] of placed) if (isSelected.has(index)) pen.strokeRect(x - PICTURE / 2, y - PICTURE / 2, PICTURE, PICTURE);
  if (lasso) drawLasso();
}

function drawPicture(index, x, y) {
  const image = pictureOf(photos.ids[index]);
  if (!image.complete || !image.naturalWidth) return pen.fillRect(x - 3, y - 3, 6, 6);
  const side = Math.min(image.naturalWidth, image.naturalHeight);
  const [left, top] = [(image.naturalWidth - side) / 2, (image.naturalHeight - side) / 2];
  return pen.drawImage(image, left, top, side, side, x - PICTURE / 2, y - PICTURE / 2, PICTURE, PICTURE);
}

function pictureOf(id) {
  const known = pictures.get(id);
  if (known) return known;
  const image = new Image();
  image.onload = draw;
  image.src = thumbnail(id, PICTURE);
  pictures.set(id, image);
  if (pictures.size > MOST_PICTURES) pictures.delete(pictures.keys().next().value);
  return image;
}

function drawLasso() {
  pen.beginPath();
  lasso.forEach(([x, y], number) => (number ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
  pen.stroke();
}

// Zoom and pan

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const scale = Math.min(ZOOM.most, Math.max(ZOOM.least, view.scale * factor));
  const ratio = scale / view.scale;
  view = { scale, left: x - MARGIN - (x - MARGIN - view.left) * ratio, top: y - MARGIN - (y - MARGIN - view.top) * ratio };
  draw();
}

function pan(across, down) {
  view = { ...view, left: view.left + across, top: view.top + down };
  draw();
}

// Selection

function select(indexes) {
  selected = indexes;
  element("map-count").textContent = indexes.length ? `${quantity(indexes.length, "photo")} selected` : "";
  grid.show({
    count: indexes.length, aspect: () => 1, sections: [],
    picture: (index, pixels) => thumbnail(photos.ids[indexes[index]], pixels),
    name: (index) => `selected photo ${NUMBER.format(index + 1)}`,
  });
  element("map-actions").hidden = !indexes.length;
  element("map-search").disabled = indexes.length > MOST_SEARCHED;
  element("map-search").title = indexes.length > MOST_SEARCHED ? `Select ${MOST_SEARCHED} photos or fewer` : "";
  if (indexes.length) announce(element("map-count").textContent);
  draw();
}

function inside(polygon, [x, y]) {
  let isInside = false;
  polygon.forEach(([x1, y1], number) => {
    const [x2, y2] = polygon[(number || polygon.length) - 1];
    if ((y1 > y) !== (y2 > y) && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) isInside = !isInside;
  });
  return isInside;
}

function openSelected(place) {
  const entry = () => ({ photo: { id: photos.ids[selected[place]] }, query: null });
  showWhy(entry(), {
    step: (by) => {
      if (place + by < 0 || place + by >= selected.length) return null;
      place += by;
      return entry();
    },
  });
}

function openNear(x, y, reach) {
  const near = placed.map(([index, left, top]) => [Math.hypot(left - x, top - y), index]).sort(([one], [other]) => one - other)[0];
  if (near && near[0] < reach) showWhy({ photo: { id: photos.ids[near[1]] }, query: null }, { step: () => null });
}

// Pointer and keys

function isDrawing() {
  return element("map-lasso").getAttribute("aria-pressed") === "true";
}

function at({ clientX, clientY }) {
  const { left, top } = canvas.getBoundingClientRect();
  return [clientX - left, clientY - top];
}

// A browser tells of several moves at once, when a hand is quick.
function pathOf(event) {
  const moves = event.getCoalescedEvents();
  return (moves.length ? moves : [event]).map(at);
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  dragged = { from: at(event), last: at(event) };
  if (event.shiftKey || isDrawing()) lasso = [at(event)];
});
canvas.addEventListener("pointermove", (event) => {
  if (!dragged) return;
  const [x, y] = at(event);
  if (lasso) lasso.push(...pathOf(event));
  else pan(x - dragged.last[0], y - dragged.last[1]);
  dragged.last = [x, y];
  draw();
});
canvas.addEventListener("pointerup", (event) => {
  const [x, y] = at(event);
  if (lasso) {
    const around = lasso;
    lasso = null;
    select([...photos.ids.keys()].filter((index) => inside(around, onScreen(index))));
  } else if (dragged && Math.hypot(x - dragged.from[0], y - dragged.from[1]) < 4) {
    openNear(x, y, PICTURE);
  }
  dragged = null;
});
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(ZOOM.step ** (-event.deltaY / 100), ...at(event));
}, { passive: false });

const STEP = 80; // pixels
const KEYS = {
  ArrowLeft: () => pan(STEP, 0), ArrowRight: () => pan(-STEP, 0), ArrowUp: () => pan(0, STEP), ArrowDown: () => pan(0, -STEP),
  "+": () => zoom(ZOOM.step), "-": () => zoom(1 / ZOOM.step), 0: home,
  Enter: () => openNear(canvas.clientWidth / 2, canvas.clientHeight / 2, Infinity),
  s: () => select([...photos.ids.keys()].filter((index) => {
    const [x, y] = onScreen(index);
    return x >= 0 && y >= 0 && x <= canvas.clientWidth && y <= canvas.clientHeight;
  })),
};
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  event.stopPropagation();
  KEYS[event.key]();
});
element("map-in").addEventListener("click", () => zoom(ZOOM.step ** 2));
element("map-out").addEventListener("click", () => zoom(ZOOM.step ** -2));
element("map-home").addEventListener("click", home);
element("map-search").addEventListener("click", () => searchFor(...selected.map((index) => photos.ids[index])));
element("map-none").addEventListener("click", () => {
  select([]);
  canvas.focus();
});
element("map-lasso").addEventListener("click", ({ currentTarget }) => currentTarget.setAttribute("aria-pressed", String(!isDrawing())));
new ResizeObserver(() => canvas.clientWidth && resize()).observe(canvas);
