// Marks: the user's decisions about a keeper and a duplicate. The browser stores them if it can, so a reload loses none.
"use strict";

const facts = JSON.parse(document.getElementById("facts").textContent);
const groups = JSON.parse(document.getElementById("groups-data").textContent);
const MARKS = {
  different: { label: "not duplicates", option: "--not-duplicates" },
  same: { label: "duplicates", option: "--same" },
};
const STORED = `vggsearch-marks-${facts.folder}`;
const marks = new Map(storedMarks());

function storedMarks() {
  try {
    return Object.entries(JSON.parse(localStorage.getItem(STORED) ?? "{}"));
  } catch {
    return []; // the browser stores nothing for files, or another page wrote there
  }
}

function keepMarks() {
  try {
    localStorage.setItem(STORED, JSON.stringify(Object.fromEntries(marks)));
  } catch {
    // as above: the marks then last as long as the page is open
  }
}

// Both names quoted for the shell, so that they are unambiguous; the command is made of this.
function pairKey(group, position) {
  return `${group.photos[0].word} ${group.photos[position].word}`;
}

function markOf(group, position) {
  const kind = marks.get(pairKey(group, position));
  return Object.hasOwn(MARKS, kind ?? "") ? kind : undefined;
}

// Only the marks of this page's groups: any file may have written to what a browser stores for files.
function marked() {
  return groups.flatMap((group) => [...group.photos.keys()].slice(1)
    .map((position) => ({ group, position, kind: markOf(group, position) })).filter(({ kind }) => kind));
}

// Mark members of a group; if all of them have that mark already, unmark them.
function mark(group, positions, kind) {
  const isUndone = positions.every((position) => markOf(group, position) === kind);
  for (const position of positions) {
    if (isUndone) marks.delete(pairKey(group, position));
    else marks.set(pairKey(group, position), kind);
  }
  keepMarks();
  showTray();
}

function clearMarks() {
  for (const { group, position } of marked()) marks.delete(pairKey(group, position));
  keepMarks();
  showTray();
}

function commands() {
  return marked()
    .map(({ group, position, kind }) => `${facts.command} ${MARKS[kind].option} ${pairKey(group, position)}`).join("\n");
}

function showTray() {
  const kinds = marked().map(({ kind }) => kind);
  const counts = Object.entries(MARKS).map(([kind, { label }]) => [kinds.filter((each) => each === kind).length, label]);
  const text = counts.filter(([count]) => count).map(([count, label]) => `${count.toLocaleString("en")} as ${label}`);
  document.getElementById("tray").hidden = !kinds.length;
  document.getElementById("marks").textContent = `Marked: ${text.join(", ")}`;
}

function showCommands() {
  const text = document.getElementById("commands-text");
  text.value = commands() || "No marks yet: press n or y to mark a duplicate.";
  document.getElementById("copied").textContent = "";
  document.getElementById("commands").showModal();
  text.setSelectionRange(0, 0);
  text.scrollTo(0, 0);
}

async function copyCommands() {
  const text = document.getElementById("commands-text");
  text.select();
  let isCopied = false;
  try {
    await navigator.clipboard.writeText(text.value);
    isCopied = true;
  } catch {
    isCopied = document.execCommand("copy"); // older browsers, and those that do not trust files
  }
  document.getElementById("copied").textContent = isCopied ? "Copied." : "Press Ctrl+C to copy.";
}
