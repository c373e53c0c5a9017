// A group as a card: the keeper on the left, its duplicates beside it, and how each differs.

// `review` is what a page knows beyond the groups: the pictures of one (`picturesOf`), what was decided (`markOf`) and the
// words for it (`labels`).

import { NUMBER, bytesText, confidenceText, isRegion, make, quantity, regionNumber, regionsDrawn, similarityText } from "./elements.js";

const WELL = { width: 240, height: 180 };
function isLeftOut(group, review) {
  return group.photos.every((_, position) => !position || review.markOf(group, position) === "both");
}

function titleOf(group, review) {
  const orMore = (least) => (group.photos.length > 2 && least < 1 ? " or more" : "");
  return make("div", { class: "title" },
    make("h2", {}, `Group ${NUMBER.format(group.number)}`),
    make("span", {}, quantity(group.photos.length, "photo")),
    make("span", {}, `similarity ${similarityText(group.similarity)}${orMore(group.similarity)}`),
    make("span", {}, `confidence ${confidenceText(group.confidence)}${orMore(group.confidence)}`),
    group.frees ? make("span", {}, `frees ${bytesText(group.frees)}`) : null,
    make("button", { type: "button", "data-do": "all", "aria-pressed": String(isLeftOut(group, review)), title: "Keep all photos of this group" }, "Leave this group out"));
}

function frame(photo, picture, regions, alt) {
  const scale = Math.min(WELL.width / photo.width, WELL.height / photo.height);
  const image = make("img", { src: picture.src, alt, loading: "lazy", draggable: "false" });
  const element = make("span", { class: "frame" }, image, regions.length ? regionsDrawn(regions) : null,
    ...regions.map(regionNumber));
  element.style.width = `${Math.max(1, photo.width * scale)}px`;
  element.style.height = `${Math.max(1, photo.height * scale)}px`;
  return element;
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
  if (!date) return [];
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

function badgesOf(group, position, review) {
  if (position === 0) return make("div", { class: "badges" }, make("span", { class: "badge keep" }, "Keep"));
  const member = group.photos[position];
  const marked = review.markOf(group, position);
  return make("div", { class: "badges" },
    isRegion(member) ? make("span", { class: "number", title: "The matching region is outlined with this number" }, String(position)) : null,
    make("span", { class: "badge" }, member.kind),
    make("span", { class: "note" }, `similarity ${similarityText(member.similarity)}`),
    make("span", { class: "note" }, `confidence ${confidenceText(member.confidence)}`),
    marked ? make("span", { class: `badge ${marked}` }, `marked: ${review.labels[marked]}`) : null);
}

function actionsOf(group, position, review) {
  const marked = review.markOf(group, position);
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

function figureOf(group, position, pictures, common, review) {
  const photo = group.photos[position];
  const notes = position ? [photo.how, photo.reason && `keeper preferred: ${photo.reason}`] : [];
  return make("figure", { class: position ? "member" : "keeper", "data-position": position },
    photoShown(group, position, pictures),
    make("figcaption", {},
      badgesOf(group, position, review),
      pathOf(photo, common),
      factsOf(photo, group.photos[0]),
      ...notes.filter(Boolean).map((note) => make("p", { class: "note" }, note)),
      photo.leftAlone ? make("p", { class: "note alone" }, `left alone: ${photo.leftAlone}`) : null,
      position ? actionsOf(group, position, review) : null));
}

export function cardContent(group, review) {
  const pictures = review.picturesOf(group);
  const common = commonFolder(group);
  const figures = group.photos.map((_, position) => figureOf(group, position, pictures, common, review));
  return [titleOf(group, review), make("div", { class: "photos" }, figures[0], make("div", { class: "members" }, ...figures.slice(1)))];
}
