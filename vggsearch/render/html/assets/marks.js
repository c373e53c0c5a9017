// Marks: what a person says of a keeper and a duplicate. Kept by the browser where it can, so that a reload loses none.
"use strict";

const facts = JSON.parse(document.getElementById("facts").textContent);
const groups = JSON.parse(document.getElementById("groups-data").textContent);
const MARKS = {
  different: { says: "not duplicates", option: "--not-duplicates" },
  same: { says: "duplicates", option: "--same" },
};
const STORED = `vggsearch-marks-${facts.folder}`;
const marks = new Map(storedMarks());

function storedMarks() {
  try {
    return Object.entries(JSON.parse(localStorage.getItem(STORED) ?? "{}"));
  } catch {
    return []; // the browser keeps nothing for files, or something else wrote there
  }
}

function keepMarks() {
  try {
    localStorage.setItem(STORED, JSON.stringify(Object.fromEntries(marks)));
  } catch {
    // as above: the marks last as long as the page is open
  }
}

// The two as a shell reads them: no name can be taken for another, and the command is made of it.
function pairKey(group, position) {
  return `${group.photos[0].word} ${group.photos[position].word}`;
}

function markOf(group, position) {
  const kind = marks.get(pairKey(group, position));
  return Object.hasOwn(MARKS, kind ?? "") ? kind : undefined;
}

// Those of this page alone, looked up from its own groups: what a browser keeps for files, any file may have written.
function marked() {
  return groups.flatMap((group) => [...group.photos.keys()].slice(1)
    .map((position) => ({ group, position, kind: markOf(group, position) })).filter(({ kind }) => kind));
}

// Mark some members of a group; where all of them have that mark already, take it away.
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
  const told = Object.entries(MARKS).map(([kind, { says }]) => [kinds.filter((each) => each === kind).length, says]);
  const text = told.filter(([count]) => count).map(([count, says]) => `${count.toLocaleString("en")} as ${says}`);
  document.getElementById("tray").hidden = !kinds.length;
  document.getElementById("marks").textContent = `Marked: ${text.join(", ")}`;
}

function showCommands() {
  const text = document.getElementById("commands-text");
  text.value = commands() || "nothing is marked yet: n or y marks a duplicate";
  document.getElementById("copied").textContent = "";
  document.getElementById("commands").showModal();
}

async function copyCommands() {
  const text = document.getElementById("commands-text");
  text.select();
  let isCopied = false;
  try {
    await navigator.clipboard.writeText(text.value);
    isCopied = true;
  } catch {
    isCopied = document.execCommand("copy"); // older browsers, and those that trust no file
  }
  document.getElementById("copied").textContent = isCopied ? "Copied." : "Press Ctrl+C to copy.";
}
