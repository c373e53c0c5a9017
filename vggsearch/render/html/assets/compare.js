// Keeper and duplicate on top of each other, aligned: flipping reveals differences that no list of facts can show.

const BLINK_MS = 500;
const compareDialog = document.getElementById("compare");
const stage = compareDialog.querySelector(".stage");
const under = document.getElementById("compare-under");
const over = document.getElementById("compare-over");
let comparing = null;
let blinking = 0;

function openCompare(group, position) {
  const isSame = comparing?.group === group && comparing.position === position;
  comparing = { group, position };
  if (!compareDialog.open) compareDialog.showModal();
  if (!isSame) stage.classList.add("flipped");
  const pictures = picturesOf(group);
  const [below, above] = order(group, position);
  show(under, group.photos[below], pictures?.[below]);
  show(over, group.photos[above], pictures?.[above]);
  stage.classList.add("has-both");
  layOut();
  showCaption();
}

// The photo that contains the other lies below, since it shows all of both.
function order(group, position) {
  return group.photos[position].alignedIn === "member" ? [position, 0] : [0, position];
}

// First the thumbnail, then the photo itself, if it can still be read.
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

function layOut() {
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

// The region that both photos show: there is no difference to see elsewhere.
function region(corners) {
  const all = "inset(0)";
  return corners ? `polygon(${corners.map(([x, y]) => `${100 * x}% ${100 * y}%`).join(", ")})` : all;
}

// The matrix that maps a picture of the stage's size to its corners in the photo below.
function placed([[left, top], [right, rightTop], , [bottomLeft, bottom]], width, height) {
  const across = [right - left, ((rightTop - top) * height) / width];
  const down = [((bottomLeft - left) * width) / height, bottom - top];
  return `matrix(${[...across, ...down, left * width, top * height].join(",")})`;
}

function showCaption() {
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
    `${photo.size}, ${bytesText(photo.bytes)}`,
    `group ${group.number}, ${position} of ${group.photos.length - 1}: ${member.kind}, similarity ${similarityText(member.similarity)}`,
    member.how,
    marked ? `marked: ${MARKS[marked].label}` : "",
  ].filter(Boolean).join(" · ");
  compareDialog.querySelector('[data-key="b"]').setAttribute("aria-pressed", String(blinking > 0));
  compareDialog.querySelector('[data-key="d"]').setAttribute("aria-pressed", String(isDifference));
}

function flip() {
  stage.classList.toggle("flipped");
  showCaption();
}

function blink(isWanted = !blinking) {
  clearInterval(blinking);
  blinking = isWanted ? setInterval(flip, BLINK_MS) : 0;
  showCaption();
}

function difference() {
  stage.classList.toggle("difference");
  showCaption();
}

addEventListener("resize", layOut);
compareDialog.addEventListener("close", () => {
  blink(false);
  stage.classList.remove("difference");
  comparing = null;
});
