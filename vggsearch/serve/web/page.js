// What all views need of the page: its elements, one place to speak to screen readers, short notices, what the server holds.

import { make } from "./shared/elements.js";
import { followJob, get, post, stopJob } from "./api.js";

export const element = (name) => document.getElementById(name);
const NOTICE_MS = 6000;
const NOT_PRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Co}]/gu;

// A name as one line that reads as it is: what could turn, hide or break a text is escaped.
export function oneLine(text) {
  return text.replace(NOT_PRINTABLE, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
}

export function nameOf(path) {
  return oneLine(path.slice(path.lastIndexOf("/") + 1));
}

export function folderOf(path) {
  return oneLine(path.slice(0, Math.max(0, path.lastIndexOf("/"))));
}

// Read by screen readers when it changes.
export function announce(text) {
  element("live").textContent = text;
}

let hiding = 0;

export function notify(text, isError = false) {
  const notice = element("notice");
  notice.textContent = text;
  notice.classList.toggle("bad", isError);
  notice.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { notice.hidden = true; }, NOTICE_MS);
}

export function tellFailure(error) {
  if (error.name === "AbortError") return;
  notify(error.message, true);
  if (!error.status && error.name !== "Error") console.error(error);
}

// What the server holds, asked once until something may have changed it.
let known = null;

export function state() {
  known ??= get("/api/state").catch((error) => {
    known = null;
    throw error;
  });
  return known;
}

export function forgetState() {
  known = null;
}

// The path on the disk of the server, which is usually this machine.
export async function pathOnDisk(photo) {
  const { indexes, info } = await state();
  const { root } = info[photo.index ? indexes.indexOf(photo.index) : 0];
  return root ? `${root.replace(/\/$/, "")}/${photo.path}` : photo.path;
}

export async function copyPath(photo) {
  try {
    await navigator.clipboard.writeText(await pathOnDisk(photo));
    notify("The path is copied.");
  } catch {
    notify(`The browser allows no copying here. The path is ${oneLine(photo.path)}`, true);
  }
}

// In the file manager, if this page is seen on the machine that serves it.
export async function reveal(photo) {
  const { can_reveal: canReveal } = await state();
  if (!canReveal) notify("A file manager opens only on a desktop, and only if no other machine can connect.", true);
  else await post(`/api/photos/${photo.id}/reveal`, {});
}

// Show the progress of a job in `host`, with a button that stops it; resolves with its result.
export async function watchJob(host, job, words) {
  const bar = make("progress", { "aria-label": words });
  const text = make("span", { class: "dim" }, words);
  const stop = make("button", { type: "button" }, "Stop");
  stop.addEventListener("click", () => stopJob(job).catch(tellFailure));
  host.replaceChildren(make("div", { class: "job" }, text, bar, stop));
  try {
    return await followJob(job, ({ stage, done, total, unit, rate }) => {
      if (total) [bar.max, bar.value] = [total, done];
      const counted = total ? `: ${done.toLocaleString("en")} of ${total.toLocaleString("en")}` : "";
      const speed = rate && total ? `, ${Math.round(rate).toLocaleString("en")} ${unit ?? ""}/s` : "";
      text.textContent = `${stage ?? words}${counted}${speed}`;
    });
  } finally {
    host.replaceChildren();
  }
}
