// Marks: the user's decisions about a duplicate and its keeper. The browser stores them if it can, so a reload loses none.

const facts = JSON.parse(document.getElementById("facts").textContent);
export const groups = JSON.parse(document.getElementById("groups-data").textContent);
export const MARKS = {
  different: { label: "not duplicates", option: "--not-duplicates" },
  same: { label: "duplicates", option: "--same" },
  keep: { label: "the one to keep", option: "--keep" },
  both: { label: "to keep with the keeper", option: "--keep" },
};
const MOST_NAMED = 200; // groups in one command, which a shell limits
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

export function markOf(group, position) {
  const kind = marks.get(pairKey(group, position));
  return Object.hasOwn(MARKS, kind ?? "") ? kind : undefined;
}

// Only the marks of this page's groups: any file may have written to what a browser stores for files.
function marked() {
  return groups.flatMap((group) => [...group.photos.keys()].slice(1)
    .map((position) => ({ group, position, kind: markOf(group, position) })).filter(({ kind }) => kind));
}

// Mark members of a group; if all of them have that mark already, unmark them. Only one of a group is the one to keep.
export function mark(group, positions, kind) {
  const isUndone = positions.every((position) => markOf(group, position) === kind);
  if (kind === "keep") {
    for (const position of group.photos.keys()) if (markOf(group, position) === "keep") marks.delete(pairKey(group, position));
  }
  for (const position of positions) {
    if (isUndone) marks.delete(pairKey(group, position));
    else marks.set(pairKey(group, position), kind);
  }
  keepMarks();
  showTray();
}

export function clearMarks() {
  for (const { group, position } of marked()) marks.delete(pairKey(group, position));
  keepMarks();
  showTray();
}

function commands() {
  const lines = [];
  const kept = new Map();
  for (const { group, position, kind } of marked()) {
    if (kind === "different" || kind === "same") {
      lines.push(`${facts.decide} ${MARKS[kind].option} ${pairKey(group, position)}`);
      continue;
    }
    const words = kept.get(group) ?? new Set();
    if (kind === "both") words.add(group.photos[0].word);
    kept.set(group, words.add(group.photos[position].word));
  }
  for (const words of kept.values()) lines.push(`${facts.decide} --keep ${[...words].join(" ")}`);
  return lines.join("\n");
}

// The command that plans the removal of the duplicates in the groups that the filters show.
function removal(shown) {
  if (!facts.remove || !shown.length) return "";
  if (shown.length === groups.length) return facts.remove;
  if (shown.length > MOST_NAMED) return "";
  return [facts.remove, ...shown.map((group) => `--group ${group.photos[0].word}`)].join(" ");
}

export function showTray() {
  const kinds = marked().map(({ kind }) => kind);
  const counts = Object.entries(MARKS).map(([kind, { label }]) => [kinds.filter((each) => each === kind).length, label]);
  const text = counts.filter(([count]) => count).map(([count, label]) => `${count.toLocaleString("en")} as ${label}`);
  document.getElementById("tray").hidden = !kinds.length;
  document.getElementById("marks").textContent = `Marked: ${text.join(", ")}`;
}

export function showCommands(shown) {
  const text = document.getElementById("commands-text");
  text.value = commands() || "No marks yet: press n, y, p or a to mark a duplicate.";
  const removing = document.getElementById("removal-text");
  const count = shown.length === 1 ? "the group shown" : `the ${shown.length.toLocaleString("en")} groups shown`;
  removing.value = removal(shown);
  document.getElementById("removal").hidden = !facts.remove || !shown.length;
  document.getElementById("removal-title").textContent = `Remove the duplicates in ${count}`;
  if (!removing.value) removing.value = `Filter the list to at most ${MOST_NAMED} groups to get the command.`;
  document.getElementById("copied").textContent = "";
  document.getElementById("commands").showModal();
  for (const each of [text, removing]) {
    each.setSelectionRange(0, 0);
    each.scrollTo(0, 0);
  }
}

export async function copyText(name) {
  const text = document.getElementById(name);
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
