// Keeper and duplicate over each other at the same place and size: flipping shows a difference that no list of facts can.

const BLINK_MS = 500;
const compareDialog = document.getElementById("compare");
const stage = compareDialog.querySelector(".stage");
const under = document.getElementById("compare-under");
const over = document.getElementById("compare-over");
let comparing = null;
let blinking = 0;

function openCompare(group, position) {
  const isAround = comparing?.group === group && comparing.position === position;
  comparing = { group, position };
  if (!compareDialog.open) compareDialog.showModal();
  if (!isAround) stage.classList.add("flipped");
  const pictures = picturesOf(group);
  const [below, above] = order(group, position);
  show(under, group.photos[below], pictures?.[below]);
  show(over, group.photos[above], pictures?.[above]);
  stage.classList.add("has-both");
  lay();
  tell();
}

// The photo that the other was found in lies below, since it shows all of both.
function order(group, position) {
  return group.photos[position].alignedIn === "member" ? [position, 0] : [0, position];
}

// The thumbnail at once, the photo itself as soon as it is read, where it still is beside the page.
function show(image, photo, picture) {
  image.src = typeof picture === "string" ? address(picture) : "data:,";
  image.alt = photo.path;
  image.dataset.wanted = photo.link;
  const whole = new Image();
  whole.onload = () => {
    if (image.dataset.wanted === photo.link && whole.naturalWidth > 1) image.src = photo.link;
  };
  whole.src = photo.link;
}

function lay() {
  if (!compareDialog.open) return;
  const { group, position } = comparing;
  const [below, above] = order(group, position);
  const member = group.photos[position];
  const room = stage.parentElement;
  const photo = group.photos[below];
  const scale = Math.min(room.clientWidth / photo.width, room.clientHeight / photo.height);
  const [width, height] = [photo.width * scale, photo.height * scale];
  stage.style.width = `${width}px`;
  stage.style.height = `${height}px`;
  stage.style.setProperty("--both", region(member.corners));
  over.style.transform = member.corners ? placed(member.corners, width, height) : "none";
  const isStretched = Math.abs((group.photos[above].width / group.photos[above].height) / (photo.width / photo.height) - 1) > 0.03;
  over.style.objectFit = isStretched && !member.corners ? "contain" : "fill";
  over.style.background = isStretched && !member.corners ? "#000" : "none";
}

// What both photos show: elsewhere there is no difference to see.
function region(corners) {
  const all = "inset(0)";
  return corners ? `polygon(${corners.map(([x, y]) => `${100 * x}% ${100 * y}%`).join(", ")})` : all;
}

// The matrix that takes a picture of the stage's size to where its corners lie in the photo below.
function placed([[left, top], [right, rightTop], , [bottomLeft, bottom]], width, height) {
  const across = [right - left, ((rightTop - top) * height) / width];
  const down = [((bottomLeft - left) * width) / height, bottom - top];
  return `matrix(${[...across, ...down, left * width, top * height].join(",")})`;
}

function tell() {
  const { group, position } = comparing;
  const isDifference = stage.classList.contains("difference");
  const [below, above] = order(group, position);
  const shown = stage.classList.contains("flipped") ? below : above;
  const photo = group.photos[shown];
  const label = document.getElementById("compare-shown");
  label.textContent = isDifference ? "Difference" : shown ? "Duplicate" : "Keeper";
  label.className = isDifference ? "neither" : shown ? "over" : "";
  document.getElementById("compare-path").textContent = photo.path;
  const member = group.photos[position];
  const marked = markOf(group, position);
  document.getElementById("compare-note").textContent = [
    `${photo.width} × ${photo.height}, ${bytesText(photo.bytes)}`,
    `group ${group.number}, ${position} of ${group.photos.length - 1}: ${member.kind}, ${similarityText(member.similarity)}`,
    member.how,
    marked ? `marked: ${MARKS[marked].says}` : "",
  ].filter(Boolean).join(" · ");
  compareDialog.querySelector('[data-key="b"]').setAttribute("aria-pressed", String(blinking > 0));
  compareDialog.querySelector('[data-key="d"]').setAttribute("aria-pressed", String(isDifference));
}

function flip() {
  stage.classList.toggle("flipped");
  tell();
}

function blink(isWanted = !blinking) {
  clearInterval(blinking);
  blinking = isWanted ? setInterval(flip, BLINK_MS) : 0;
  tell();
}

function difference() {
  stage.classList.toggle("difference");
  tell();
}

addEventListener("resize", lay);
compareDialog.addEventListener("close", () => {
  blink(false);
  stage.classList.remove("difference");
  comparing = null;
});
