// The view of the state: what the index holds, what was skipped and why, and how to update it.

import { NUMBER, bytesText, make, quantity } from "./shared/elements.js";
import { post } from "./api.js";
import { forgetPhotos } from "./browse.js";
import { forgetMap } from "./map.js";
import { announce, element, forgetState, notify, oneLine, state, tellFailure, watchJob } from "./page.js";

export async function openState() {
  try {
    show(await state());
  } catch (error) {
    tellFailure(error);
  }
}

function show({ indexes, info, skipped, skipped_count: count, photos, can_change: canChange, version }) {
  element("indexes").replaceChildren(...info.map((each, number) => indexShown(indexes[number], each, canChange)));
  element("skipped-title").textContent = count ? `${quantity(count, "skipped file")}` : "No file was skipped";
  element("skipped").hidden = !count;
  const rows = skipped.map(({ path, reason }) => make("tr", {}, make("td", { class: "file" }, oneLine(path)), make("td", {}, oneLine(reason))));
  element("skipped-rows").replaceChildren(...rows);
  element("skipped-more").textContent = count > skipped.length ? `The first ${NUMBER.format(skipped.length)} are listed; vggsearch info --skipped lists all.` : "";
  element("version").textContent = `vggsearch ${version}${canChange ? "" : ", read only"}`;
  announce(`${quantity(photos, "photo")}, ${quantity(count, "skipped file")}`);
}

function indexShown(name, info, canChange) {
  const job = make("div", { class: "job-place" });
  const update = canChange ? make("button", { type: "button", class: "primary" }, "Update now") : null;
  update?.addEventListener("click", () => updateNow(name, update, job));
  const facts = info.published ? factsOfPublished(info) : factsOf(info);
  return make("section", { class: "panel", "aria-label": `Index ${oneLine(name)}` },
    make("div", { class: "panel-head" }, make("h2", {}, oneLine(name)), update),
    job,
    make("dl", { class: "state-facts" }, ...facts.flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, value)])));
}

async function updateNow(name, button, host) {
  button.disabled = true;
  try {
    const { job } = await post("/api/update", { index: name });
    const result = await watchJob(host, job, "Updating");
    forgetState();
    forgetPhotos();
    forgetMap();
    notify(result.line ?? "The index is up to date.");
    await openState();
  } catch (error) {
    tellFailure(error);
  }
  button.disabled = false;
}

function networkOf({ model, layer, pooling, sizes, mirror }) {
  const squares = sizes.map((size) => `${size} × ${size}`).join(" and ");
  return `${model}, layer ${layer}, ${pooling} pooling, ${squares} pixels${mirror ? ", with mirror images" : ""}`;
}

function factsOfPublished({ root, published, photos, spec, dimensions }) {
  return [
    ["Published at", oneLine(published)],
    ["Photos", NUMBER.format(photos)],
    ["Photo folder", root ? oneLine(root) : "not known here: photos are found, and not shown"],
    ["Network", networkOf(spec)],
    ["Vectors", `${NUMBER.format(dimensions)} dimensions`],
  ];
}

function factsOf({ root, directory, photos, blank, skipped, spec, made_by: madeBy, search, is_search_fresh: isFresh, local_features: features, bytes, parts }) {
  return [
    ["Photo folder", oneLine(root ?? "none yet")],
    ["Index", oneLine(directory)],
    ["Photos", NUMBER.format(photos)],
    ["Blank photos", blank ? `${NUMBER.format(blank)}, which match no other photo` : "none"],
    ["Skipped files", Object.entries(skipped).map(([kind, count]) => `${NUMBER.format(count)} ${kind}`).join(", ") || "none"],
    ["Network", networkOf(spec)],
    ["Computed by", madeBy.join(", ") || "nothing yet"],
    ["Vector index", search ? (isFresh ? "up to date" : "out of date: update now") : "none"],
    ["Local features", features ? `of ${quantity(features, "photo")}` : "none"],
    ["On disk", `${bytesText(bytes)} in ${quantity(parts, "part")}`],
  ];
}
