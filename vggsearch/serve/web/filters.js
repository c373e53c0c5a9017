// The filters of a search: what can be chosen, with how many photos each choice leaves, and what is chosen.

import { NUMBER, make } from "./shared/elements.js";
import { get, missing } from "./api.js";
import { element, oneLine, tellFailure } from "./page.js";

export const FILTERS = ["folder", "since", "until", "orientation", "min_side"];
const SHAPES = { landscape: "Landscape", portrait: "Portrait", square: "Square" };
const TO = ".."; // between the ends of a time
let asked = 0;

const WORDS = {
  folder: oneLine, year: (time) => time.replace(TO, " to "), orientation: (shape) => SHAPES[shape] ?? shape,
  side: (pixels) => `${NUMBER.format(pixels)} pixels or more`,
};

// Fill the fields at once with what is chosen, and with all choices when the server has counted them.
export async function showFilters(filters) {
  const number = asked += 1;
  element("clear-filters").hidden = !FILTERS.some((name) => filters[name]);
  for (const [name, value] of Object.entries(valuesOf(filters))) element(`filter-${name}`).value = value;
  if (missing.has("list")) return;
  try {
    const found = await get("/api/counts", filters);
    if (number === asked) fillFields(found, valuesOf(filters));
  } catch (error) {
    tellFailure(error);
  }
}

function valuesOf({ folder = "", since = "", until = "", orientation = "", min_side: side = "" }) {
  return { folder, year: since === until ? since : `${since}${TO}${until}`, orientation, side };
}

function fillFields({ folders, years, orientations, sizes }, chosen) {
  const choices = {
    folder: ["All folders", folders.map(({ path, count }) => [path, count])],
    year: ["Any year", years.map(({ year, count }) => [year, count])],
    orientation: ["Any shape", orientations.map(({ orientation, count }) => [orientation, count])],
    side: ["Any size", sizes.map(({ min_side: side, count }) => [side, count])],
  };
  for (const [name, [all, counted]] of Object.entries(choices)) {
    if (chosen[name] && !counted.some(([value]) => String(value) === chosen[name])) counted.push([chosen[name], 0]);
    fill(`filter-${name}`, all, counted.map(([value, count]) => [value, `${WORDS[name](String(value))} (${NUMBER.format(count)})`]), chosen[name]);
  }
}

export function fill(name, all, choices, chosen = "") {
  element(name).replaceChildren(...[["", all], ...choices].map(([value, text]) => make("option", { value }, text)));
  element(name).value = chosen;
}

export function chosenFilters() {
  const [folder, year, orientation, side] = ["folder", "year", "orientation", "side"].map((name) => element(`filter-${name}`).value);
  const [since, until] = year.includes(TO) ? year.split(TO) : [year, year];
  return { folder, since, until, orientation, min_side: side };
}
