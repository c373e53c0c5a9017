// The view of duplicates: decide about the groups, remove what is left over, and undo that.

import { bytesText, make, quantity } from "./shared/elements.js";
import { GroupList } from "./shared/list.js";
import { get, original, post, thumbnail, withParameters } from "./api.js";
import { announce, element, forgetState, notify, oneLine, state, tellFailure, watchJob } from "./page.js";
import { forgetPhotos } from "./browse.js";
import { forgetMap } from "./map.js";
import { isWhyOpen, showWhy } from "./why.js";

const PAGE = 1000; // groups that are asked for at once
const LABELS = { different: "not duplicates", same: "duplicates", keep: "the one to keep", both: "keep both" };
const ACTION_NAMES = {
  trash: "Move to the trash", move: "Move to the folder of this server", hardlink: "Replace exact copies with hard links",
  symlink: "Replace exact copies with symbolic links",
};
const THUMBNAIL = 240; // pixels
let list = null;
let report = null;
let canChange = false;
const marks = new Map(); // what was decided while this page is open: "keeper member" to kind

export async function openDuplicates() {
  if (list) return;
  await find();
}

export function duplicateKeys() {
  return list && !isWhyOpen() ? { ...list.keys, x: openPlan } : {};
}

// Finding

async function find() {
  element("count").textContent = "";
  element("duplicates-job").replaceChildren();
  element("filters").hidden = !list; // there is nothing to filter yet
  element("regroup").hidden = true;
  try {
    const known = await state();
    fillIndexes(known.indexes);
    canChange = known.can_change;
    const found = await groupsFound();
    show(found);
    fillActions(known.actions);
    await showJournals();
  } catch (error) {
    element("duplicates-job").textContent = error.message;
    tellFailure(error);
  }
}

// Duplicates are those within one index.
function fillIndexes(names) {
  element("of-index").hidden = names.length < 2;
  if (element("duplicates-index").length) return;
  element("duplicates-index").append(...names.map((name) => make("option", { value: name }, oneLine(name))));
}

async function groupsFound() {
  const groups = [];
  for (;;) {
    const answer = await get("/api/duplicates", { index: element("duplicates-index").value, offset: groups.length, count: PAGE });
    if (answer.status === 202) {
      await watchJob(element("duplicates-job"), answer.job, "Looking for duplicates");
      groups.length = 0;
      continue;
    }
    groups.push(...answer.groups);
    report = answer;
    if (!answer.groups.length || groups.length >= answer.total) return groups;
  }
}

function show(found) {
  element("filters").hidden = false;
  list?.end();
  marks.clear();
  list = new GroupList(found.map(groupOf), {
    picturesOf: (group) => group.photos.map(({ id }) => ({ src: thumbnail(id, THUMBNAIL) })),
    hasPictures: () => true, markOf, labels: LABELS, mark, compare, isComparing: () => false,
    open: ({ link }) => open(link, "_blank", "noopener"),
  });
  element("chosen").textContent = [report.chosen, ...(report.notes ?? [])].filter(Boolean).map(oneLine).join(" ");
  element("view-duplicates").classList.toggle("read-only", !canChange);
  announce(`${quantity(found.length, "group")} of duplicates`);
}

// A group as a card has it, from that of the server.
function groupOf({ group: number, keeper, members, frees_bytes: frees, confidence }) {
  return {
    number, frees, confidence,
    similarity: Math.min(...members.map(({ similarity }) => similarity)),
    photos: [photoOf(keeper), ...members.map(memberOf)],
  };
}

function photoOf({ id, path, width, height, bytes, taken }) {
  const format = path.slice(path.lastIndexOf(".") + 1).toUpperCase();
  return {
    id, path: oneLine(path), link: original(id), width, height, size: `${width} × ${height}`, bytes,
    format: /^[A-Z0-9]{2,5}$/.test(format) ? format : "", taken: taken ? taken.replace("T", " ") : null,
  };
}

function memberOf(member) {
  const { kind, similarity, confidence, reason, left_alone: leftAlone, transform, edit } = member;
  return {
    ...photoOf(member), kind, similarity, confidence, how: edit, reason: oneLine(reason ?? ""),
    leftAlone: leftAlone ? oneLine(leftAlone) : null, corners: transform?.corners, alignedIn: transform?.in,
  };
}

function compare(group, position) {
  const keeper = group.photos[0];
  const entry = (place) => ({
    photo: { ...group.photos[place], relation: group.photos[place].how, corners: null },
    query: { name: null, photo: keeper.id, address: thumbnail(keeper.id, 640), crop: null },
  });
  showWhy(entry(position), {
    step: (by) => {
      if (position + by < 1 || position + by >= group.photos.length) return null;
      position += by;
      list.choose(group, position, false);
      return entry(position);
    },
  });
}

// Deciding: saved at once

function keyOf(group, position) {
  return `${group.photos[0].id} ${group.photos[position].id}`;
}

function markOf(group, position) {
  return marks.get(keyOf(group, position));
}

// Decisions of one kind about members of a group; made again, they are taken back.
async function mark(group, positions, kind) {
  if (!canChange) return notify("This server allows no changes.", true);
  const isUndone = positions.every((position) => markOf(group, position) === kind);
  const before = new Map(marks);
  for (const position of positions) {
    if (isUndone) marks.delete(keyOf(group, position));
    else marks.set(keyOf(group, position), kind);
  }
  const chosen = positions.map((position) => group.photos[position].id);
  const keeper = group.photos[0].id;
  try {
    for (const [decision, photos] of requests(isUndone ? "undecided" : kind, keeper, chosen)) {
      await post("/api/decisions", { decision, photos });
    }
    notify(isUndone ? "The decision is taken back." : `Saved: ${LABELS[kind]}.`);
    element("regroup").hidden = false;
  } catch (error) {
    marks.clear();
    before.forEach((value, key) => marks.set(key, value));
    tellFailure(error);
  }
  list.redraw(group);
  return undefined;
}

function requests(kind, keeper, chosen) {
  if (kind === "keep") return [["keep", chosen]];
  if (kind === "both") return [["keep", [keeper, ...chosen]]];
  return chosen.map((id) => [kind, [keeper, id]]);
}

// Removing: a plan that is read before it is run

function fillActions(actions) {
  element("plan-action").replaceChildren(...actions.map((each) => make("option", { value: each }, ACTION_NAMES[each] ?? each)));
  element("open-plan").hidden = !canChange || !list.groups.length;
}

let plan = null;

async function openPlan() {
  if (!canChange) return;
  if (!element("regroup").hidden) await find(); // a plan rests on all decisions
  if (!list.shown.length) return;
  element("plan").showModal();
  makePlan();
}

async function makePlan() {
  plan = null;
  element("plan-run").disabled = true;
  element("plan-total").textContent = "Making the plan…";
  element("plan-rows").replaceChildren();
  element("plan-refused").replaceChildren();
  element("plan-table").hidden = true;
  const isAll = list.shown.length === list.groups.length;
  const groups = isAll ? undefined : list.shown.map(({ number }) => number);
  try {
    plan = await post("/api/removals", { action: element("plan-action").value, report: report.report, groups });
    showPlan();
  } catch (error) {
    element("plan-total").textContent = error.message;
  }
}

function showPlan() {
  const rows = plan.removals.map(({ path, keep, companions }) => make("tr", {},
    make("td", { class: "file" }, oneLine(path), companions.length ? make("span", { class: "dim" }, ` with ${companions.map(oneLine).join(", ")}`) : null),
    make("td", { class: "file dim" }, oneLine(keep.path))));
  element("plan-rows").replaceChildren(...rows);
  element("plan-table").hidden = !rows.length;
  element("plan-refused").replaceChildren(...plan.refused.map(({ reason }) => make("li", {}, oneLine(reason))));
  element("plan-total").textContent = oneLine(plan.line);
  element("plan-run").textContent = `${ACTION_NAMES[plan.action]}: ${quantity(rows.length, "file")}`;
  element("plan-run").disabled = !rows.length;
}

async function runPlan() {
  element("plan-run").disabled = true;
  try {
    const { job } = await post(`/api/removals/${plan.removal}/apply`, {});
    const result = await watchJob(element("plan-job"), job, "Removing");
    element("plan").close();
    notify(`${quantity(result.removed.length, "file")} removed, ${bytesText(result.freed_bytes)} freed${refusedWords(result)}.`);
    await afterChange();
  } catch (error) {
    element("plan-total").textContent = error.message;
    tellFailure(error);
  }
}

async function afterChange() {
  forgetState();
  forgetPhotos();
  forgetMap();
  await find();
}

function refusedWords({ refused }) {
  return refused.length ? `; ${quantity(refused.length, "file")} left alone: ${oneLine(refused[0].reason)}` : "";
}

// Journals of earlier removals

async function showJournals() {
  const { journals } = await get("/api/journals");
  element("journals").hidden = !journals.length;
  element("journals-count").textContent = `Earlier removals (${journals.length})`;
  element("journals-rows").replaceChildren(...journals.map(journalShown));
}

function journalShown(journal) {
  const { journal: name, action, removed, undone, bytes, error } = journal;
  const undo = make("button", { type: "button", "aria-label": `Undo ${oneLine(name)}` }, "Undo");
  undo.disabled = !canChange || Boolean(error) || undone >= removed;
  undo.addEventListener("click", () => undoJournal(journal, undo));
  const outcome = error ? oneLine(error) : `${quantity(removed, "file")}, ${bytesText(bytes)}${undone ? `; ${quantity(undone, "file")} restored` : ""}`;
  return make("tr", {}, make("td", {}, oneLine(name.replace(/\.jsonl$/, ""))), make("td", {}, oneLine(action ?? "")), make("td", {}, outcome), make("td", {}, undo));
}

async function undoJournal({ journal, index }, button) {
  button.disabled = true;
  try {
    const { job } = await post(withParameters(`/api/journals/${encodeURIComponent(journal)}/undo`, { index }), {});
    const result = await watchJob(element("journals-job"), job, "Restoring");
    notify(`${quantity(result.restored.length, "file")} restored${refusedWords(result)}.`);
    await afterChange();
  } catch (error) {
    button.disabled = false;
    tellFailure(error);
  }
}

element("open-plan").addEventListener("click", openPlan);
element("plan-action").addEventListener("change", makePlan);
element("plan-run").addEventListener("click", runPlan);
element("regroup").addEventListener("click", find);
element("duplicates-index").addEventListener("change", find);
