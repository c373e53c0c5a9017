// Keeper and duplicate on top of each other, aligned.

import { bytesText, similarityText } from "./elements.js";
import { MARKS, markOf } from "./marks.js";
import { Overlay } from "./overlay.js";
import { picturesOf } from "./pictures.js";

export const compareDialog = document.getElementById("compare");
const stage = compareDialog.querySelector(".stage");
const under = document.getElementById("compare-under");
const over = document.getElementById("compare-over");
export const overlay = new Overlay(stage, under, over, showCaption);
let comparing = null;

export function openCompare(group, position) {
  const isSame = comparing?.group === group && comparing.position === position;
  comparing = { group, position };
  if (!compareDialog.open) compareDialog.showModal();
  if (!isSame) stage.classList.add("flipped");
  const pictures = picturesOf(group);
  const [below, above] = order(group, position);
  show(under, group.photos[below], pictures?.[below]);
  show(over, group.photos[above], pictures?.[above]);
  stage.classList.add("has-both");
  layOut();
  showCaption();
}

// The photo that contains the other lies below, since it shows all of both.
function order(group, position) {
  return group.photos[position].alignedIn === "member" ? [position, 0] : [0, position];
}

// First the thumbnail, then the photo itself, if it can still be read.
function show(image, photo, picture) {
  image.src = picture?.src ?? "data:,";
  image.alt = photo.path;
  image.dataset.wanted = photo.link;
  const whole = new Image();
  whole.onload = () => {
    if (image.dataset.wanted === photo.link && whole.naturalWidth > 1) image.src = photo.link;
  };
  whole.src = photo.link;
}

function layOut() {
  if (!compareDialog.open) return;
  const { group, position } = comparing;
  const [below, above] = order(group, position);
  overlay.layOut(group.photos[below], group.photos[above], group.photos[position].corners);
}

export function showCaption() {
  if (!comparing) return;
  const { group, position } = comparing;
  const [below, above] = order(group, position);
  const shown = overlay.isFlipped ? below : above;
  const photo = group.photos[shown];
  const label = document.getElementById("compare-shown");
  label.textContent = overlay.isDifference ? "Difference" : shown ? "Duplicate" : "Keeper";
  label.className = overlay.isDifference ? "neither" : shown ? "over" : "";
  document.getElementById("compare-path").textContent = photo.path;
  const member = group.photos[position];
  const marked = markOf(group, position);
  document.getElementById("compare-note").textContent = [
    `${photo.size}, ${bytesText(photo.bytes)}`,
    `group ${group.number}, ${position} of ${group.photos.length - 1}: ${member.kind}, similarity ${similarityText(member.similarity)}`,
    member.how,
    marked ? `marked: ${MARKS[marked].label}` : "",
  ].filter(Boolean).join(" · ");
  compareDialog.querySelector('[data-key="b"]').setAttribute("aria-pressed", String(overlay.blinking > 0));
  compareDialog.querySelector('[data-key="d"]').setAttribute("aria-pressed", String(overlay.isDifference));
}

addEventListener("resize", layOut);
compareDialog.addEventListener("close", () => {
  comparing = null;
  overlay.blink(false);
  overlay.difference(false);
});
