// The thumbnails of a group, which come last in the file.

// Whether the browser has read them. A block that nothing follows yet may be incomplete.
export function hasPictures(group) {
  const data = document.getElementById(`pictures-${group.number}`);
  return Boolean(data) && (data.nextSibling !== null || document.readyState !== "loading");
}

// One of each photo: its address, or the reason why there is none. Equal ones are in the file once.
export function picturesOf(group) {
  if (!hasPictures(group)) return null;
  const shown = JSON.parse(document.getElementById(`pictures-${group.number}`).textContent);
  return shown.map((each) => (typeof each === "number" ? shown[each] : each))
    .map((each) => (typeof each === "string" ? { src: `data:image/webp;base64,${each}` } : each));
}
