// A group as a card: the keeper on the left, its duplicates beside it, and how each differs.

const WELL = { width: 240, height: 180 };
const NUMBER = new Intl.NumberFormat("en");

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

function quantity(count, noun) {
  return `${NUMBER.format(count)} ${noun}${count === 1 ? "" : "s"}`;
}

function bytesText(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
}

// Only the same picture is 1.000, only certainty 100%: nothing is rounded up to them.
function similarityText(similarity) {
  return (similarity === 1 ? 1 : Math.min(similarity, 0.999)).toFixed(3);
}

function confidenceText(confidence) {
  return confidence === 1 ? "100%" : `${(100 * Math.min(confidence, 0.999)).toFixed(1)}%`;
}

function isLeftOut(group) {
  return group.photos.every((_, position) => !position || markOf(group, position) === "both");
}

function titleOf(group) {
  const orMore = (least) => (group.photos.length > 2 && least < 1 ? " or more" : "");
  return make("div", { class: "title" },
    make("h3", {}, `Group ${NUMBER.format(group.number)}`),
    make("span", {}, quantity(group.photos.length, "photo")),
    make("span", {}, `similarity ${similarityText(group.similarity)}${orMore(group.similarity)}`),
    make("span", {}, `confidence ${confidenceText(group.confidence)}${orMore(group.confidence)}`),
    group.frees ? make("span", {}, `frees ${bytesText(group.frees)}`) : null,
    make("button", { type: "button", "data-do": "all", "aria-pressed": String(isLeftOut(group)), title: "Keep all photos of this group" }, "Leave this group out"));
}

// Whether the browser has read the pictures of a group, which come last in the file. A block that nothing follows yet
// may be incomplete.
function hasPictures(group) {
  const data = document.getElementById(`pictures-${group.number}`);
  return Boolean(data) && (data.nextSibling !== null || document.readyState !== "loading");
}

function picturesOf(group) {
  if (!hasPictures(group)) return null;
  const shown = JSON.parse(document.getElementById(`pictures-${group.number}`).textContent);
  return shown.map((each) => (typeof each === "number" ? shown[each] : each));
}

function address(picture) {
  return `data:image/webp;base64,${picture}`;
}

function frame(photo, picture, regions, alt) {
  const scale = Math.min(WELL.width / photo.width, WELL.height / photo.height);
  const image = make("img", { src: address(picture), alt, draggable: "false" });
  const element = make("span", { class: "frame" }, image, regions.length ? regionsDrawn(regions) : null,
    ...regions.map(regionNumber));
  element.style.width = `${Math.max(1, photo.width * scale)}px`;
  element.style.height = `${Math.max(1, photo.height * scale)}px`;
  return element;
}

function regionsDrawn(regions) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const kind of ["halo", "line"]) {
    for (const { corners, position } of regions) {
      const polygon = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
      polygon.setAttribute("points", corners.map((corner) => corner.join(",")).join(" "));
      polygon.setAttribute("class", kind);
      polygon.dataset.position = position;
      svg.append(polygon);
    }
  }
  return svg;
}

function regionNumber({ corners, position }) {
  const [left, top] = corners.reduce((best, corner) => (corner[0] + corner[1] < best[0] + best[1] ? corner : best));
  const label = make("span", { class: "number", "aria-hidden": "true" }, String(position));
  label.style.left = `${100 * Math.min(0.94, Math.max(0.04, left))}%`;
  label.style.top = `${100 * Math.min(0.94, Math.max(0.04, top))}%`;
  return label;
}

// Whether one photo matches only a region of the other: an outline around the whole photo would be useless.
function isRegion(member) {
  if (!member.corners) return false;
  const sides = [0, 1].map((axis) => member.corners.map((corner) => corner[axis]));
  return sides.some((values) => Math.abs(Math.min(...values)) > 0.04 || Math.abs(Math.max(...values) - 1) > 0.04);
}

function regionsIn(group, position) {
  const members = group.photos.map((member, number) => ({ ...member, position: number })).slice(1).filter(isRegion);
  if (position === 0) return members.filter((member) => member.alignedIn === "keeper");
  return members.filter((member) => member.alignedIn === "member" && member.position === position);
}

function commonFolder(group) {
  const folders = group.photos.map(({ path }) => path.slice(0, path.lastIndexOf("/") + 1));
  let common = folders[0];
  while (!folders.every((folder) => folder.startsWith(common))) {
    common = common.slice(0, common.lastIndexOf("/", common.length - 2) + 1);
  }
  return common;
}

function pathOf(photo, common) {
  const rest = photo.path.slice(common.length);
  return make("a", { class: "path", href: photo.link, target: "_blank", rel: "noopener", dir: "ltr", title: "Open the photo" },
    common ? make("bdi", { class: "common" }, common) : null, make("bdi", {}, rest));
}

function factRow(name, text, note, difference) {
  return [make("dt", {}, name), make("dd", { class: difference },
    text, note ? ` ${difference === "less" ? "▼" : difference === "more" ? "▲" : ""} ${note}` : "")];
}

function compared(value, kept) {
  if (value === kept) return ["", "alike"];
  const ratio = value / kept;
  const note = ratio >= 10 ? `${ratio.toFixed(0)} times` : ratio >= 2 ? `${ratio.toFixed(1)} times` : `${Math.abs(100 * (ratio - 1)).toFixed(ratio > 0.99 && ratio < 1.01 ? 1 : 0)}%`;
  return [note, ratio < 1 ? "less" : "more"];
}

function timeBetween(one, other) {
  const seconds = (Date.parse(one.replace(" ", "T")) - Date.parse(other.replace(" ", "T"))) / 1000;
  const size = Math.abs(seconds);
  const [count, unit] = [[31557600, "year"], [86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]]
    .map(([length, name]) => [Math.floor(size / length), name]).find(([whole]) => whole >= 1) ?? [0, "second"];
  return count ? `${quantity(count, unit)} ${seconds < 0 ? "earlier" : "later"}` : "";
}

function dateRow(photo, keeper) {
  const name = photo.taken ? "Taken" : "Modified";
  const date = photo.taken ?? photo.changed;
  const kept = photo.taken ? keeper.taken : keeper.changed;
  if (photo === keeper) return factRow(name, date.slice(0, 16), "", "");
  return factRow(name, date.slice(0, 16), kept && date ? timeBetween(date, kept) : "", date === kept ? "alike" : "");
}

function factsOf(photo, keeper) {
  const isKeeper = photo === keeper;
  const pixels = isKeeper || photo.kind === "RAW" ? ["", ""] : compared(photo.width * photo.height, keeper.width * keeper.height);
  const bytes = isKeeper ? ["", ""] : compared(photo.bytes, keeper.bytes);
  return make("dl", { class: "facts" },
    ...factRow("Pixels", photo.size, ...pixels),
    ...factRow("Size", `${bytesText(photo.bytes)} ${photo.format}`, ...bytes),
    ...dateRow(photo, keeper));
}

function badgesOf(group, position) {
  if (position === 0) return make("div", { class: "badges" }, make("span", { class: "badge keep" }, "Keep"));
  const member = group.photos[position];
  const marked = markOf(group, position);
  return make("div", { class: "badges" },
    isRegion(member) ? make("span", { class: "number", title: "The matching region is outlined with this number" }, String(position)) : null,
    make("span", { class: "badge" }, member.kind),
    make("span", { class: "note" }, `similarity ${similarityText(member.similarity)}`),
    make("span", { class: "note" }, `confidence ${confidenceText(member.confidence)}`),
    marked ? make("span", { class: `badge ${marked}` }, `marked: ${MARKS[marked].label}`) : null);
}

function actionsOf(group, position) {
  const marked = markOf(group, position);
  return make("div", { class: "actions" },
    make("button", { type: "button", "data-do": "different", "aria-pressed": String(marked === "different") }, "Not duplicates"),
    make("button", { type: "button", "data-do": "same", "aria-pressed": String(marked === "same") }, "Duplicates"),
    make("button", { type: "button", "data-do": "keep", "aria-pressed": String(marked === "keep"), title: "Keep this photo, not the keeper" }, "Keep this"),
    make("button", { type: "button", "data-do": "both", "aria-pressed": String(marked === "both"), title: "Keep this photo and the keeper" }, "Keep both"));
}

function photoShown(group, position, pictures) {
  const photo = group.photos[position];
  const picture = pictures?.[position];
  const alt = `${position ? "duplicate" : "keeper"}: ${photo.path}`;
  if (!pictures) return make("div", { class: "well" });
  if (picture.reason) return make("div", { class: "well" }, make("span", { class: "missing" }, `cannot be shown: ${picture.reason}`));
  return make("button", { type: "button", class: "well", "data-do": "compare", "aria-label": `Compare ${photo.path}` },
    frame(photo, picture, regionsIn(group, position), alt));
}

function figureOf(group, position, pictures, common) {
  const photo = group.photos[position];
  const notes = position ? [photo.how, photo.reason && `keeper preferred: ${photo.reason}`] : [];
  return make("figure", { class: position ? "member" : "keeper", "data-position": position },
    photoShown(group, position, pictures),
    make("figcaption", {},
      badgesOf(group, position),
      pathOf(photo, common),
      factsOf(photo, group.photos[0]),
      ...notes.filter(Boolean).map((note) => make("p", { class: "note" }, note)),
      photo.leftAlone ? make("p", { class: "note alone" }, `left alone: ${photo.leftAlone}`) : null,
      position ? actionsOf(group, position) : null));
}

function cardContent(group) {
  const pictures = picturesOf(group);
  const common = commonFolder(group);
  const figures = group.photos.map((_, position) => figureOf(group, position, pictures, common));
  return [titleOf(group), make("div", { class: "photos" }, figures[0], make("div", { class: "members" }, ...figures.slice(1)))];
}
