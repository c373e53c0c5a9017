// The page of one file: its list, its dialogs, its keys.

import { leaveField } from "./elements.js";
import { GroupList } from "./list.js";
import { compareDialog, openCompare, overlay, showCaption } from "./compare.js";
import { MARKS, clearMarks, copyText, groups, mark, markOf, showCommands, showTray } from "./marks.js";
import { hasPictures, picturesOf } from "./pictures.js";

const element = (name) => document.getElementById(name);
const list = new GroupList(groups, {
  picturesOf, hasPictures, markOf,
  labels: Object.fromEntries(Object.entries(MARKS).map(([kind, { label }]) => [kind, label])),
  compare: (group, position) => openCompare(group, position),
  isComparing: () => compareDialog.open,
  mark: (group, positions, kind) => {
    mark(group, positions, kind);
    showCaption();
  },
  open: (photo) => open(photo.link, "_blank", "noopener"),
});

function keys() {
  const always = {
    c: () => showCommands(list.shown),
    "?": () => element("help").showModal(),
    "/": () => element("text").focus(),
  };
  const comparing = compareDialog.open ? { f: () => overlay.flip(), b: () => overlay.blink(), d: () => overlay.difference() } : {};
  return { ...list.keys, ...comparing, ...always };
}

addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, select, textarea");
  const isElsewhere = element("help").open || element("commands").open;
  if (event.ctrlKey || event.metaKey || event.altKey || isElsewhere) return;
  if (isTyping) {
    if (event.key === "Escape") leaveField(event);
    return;
  }
  const isFlip = event.key === " " && !event.target.closest("button, a");
  const action = keys()[isFlip ? "f" : event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

compareDialog.addEventListener("click", (event) => {
  const key = event.target.closest("[data-key]")?.dataset.key;
  if (key === "Escape") compareDialog.close();
  else if (key) keys()[key]?.();
  else if (event.target.closest(".room")) overlay.flip();
});

element("open-help").addEventListener("click", () => element("help").showModal());
for (const button of document.querySelectorAll(".show-commands")) button.addEventListener("click", () => showCommands(list.shown));
element("copy").addEventListener("click", () => copyText("commands-text"));
element("copy-removal").addEventListener("click", () => copyText("removal-text"));
element("clear-marks").addEventListener("click", () => {
  clearMarks();
  groups.forEach((group) => list.redraw(group));
});
for (const button of document.querySelectorAll("dialog .close")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}

new ResizeObserver(() => {
  const bar = getComputedStyle(element("filters")).position === "sticky" ? element("filters").offsetHeight : 0;
  document.documentElement.style.setProperty("--bar", `${bar}px`);
}).observe(element("filters"));

showTray();
const reading = setInterval(() => list.drawWaiting(), 300);
addEventListener("DOMContentLoaded", () => {
  clearInterval(reading);
  list.drawWaiting();
});
