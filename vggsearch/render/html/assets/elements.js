// What both pages are built from: elements, quantities, and a region drawn over a picture. Data become text, never markup.

export const NUMBER = new Intl.NumberFormat("en");

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

export function quantity(count, noun, plural = `${noun}s`) {
  return `${NUMBER.format(count)} ${count === 1 ? noun : plural}`;
}

export function bytesText(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
}

// Only the same picture is 1.000, only certainty 100%: nothing is rounded up to them.
export function similarityText(similarity) {
  return (similarity === 1 ? 1 : Math.min(similarity, 0.999)).toFixed(3);
}

export function confidenceText(confidence) {
  return confidence === 1 ? "100%" : `${(100 * Math.min(confidence, 0.999)).toFixed(1)}%`;
}

export function regionsDrawn(regions) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const kind of ["halo", "line"]) {
    for (const { corners, position } of regions) {
      const polygon = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
      polygon.setAttribute("points", corners.map((corner) => corner.join(",")).join(" "));
      polygon.setAttribute("class", kind);
      polygon.dataset.position = position;
      svg.append(polygon);
    }
  }
  return svg;
}

export function regionNumber({ corners, position }) {
  const [left, top] = corners.reduce((best, corner) => (corner[0] + corner[1] < best[0] + best[1] ? corner : best));
  const label = make("span", { class: "number", "aria-hidden": "true" }, String(position));
  label.style.left = `${100 * Math.min(0.94, Math.max(0.04, left))}%`;
  label.style.top = `${100 * Math.min(0.94, Math.max(0.04, top))}%`;
  return label;
}

// Whether one photo matches only a region of the other: an outline around the whole photo would be useless.
export function isRegion(member) {
  if (!member.corners) return false;
  const sides = [0, 1].map((axis) => member.corners.map((corner) => corner[axis]));
  return sides.some((values) => Math.abs(Math.min(...values)) > 0.04 || Math.abs(Math.max(...values) - 1) > 0.04);
}

// Escape empties a field for texts, and what it filters, then leaves it. A browser would empty the field alone.
export function leaveField(event) {
  event.preventDefault();
  const { target } = event;
  if (target.type !== "search" || !target.value) return target.blur();
  target.value = "";
  return target.dispatchEvent(new Event("input", { bubbles: true }));
}
