"use strict";
// All that comes from the index or the server is shown as text, never as HTML.

const by = (id) => document.getElementById(id);
const limits = { imageBytes: 20 << 20, pixels: 1 << 26 };
let hasThumbnails = true;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// === Images ===

/** A place to drop an image: it knows the chosen one, and calls `changed` when it is another. */
function dropZone(zone, changed) {
  let image = null;
  let shown = null;
  const input = make("input", { type: "file", accept: "image/*", tabIndex: -1 });
  input.setAttribute("aria-label", "An image");
  input.addEventListener("change", () => set(input.files[0]));

  function set(file) {
    if (file) { image = file; draw(); changed(); }
  }
  function clear() {
    image = null; input.value = ""; draw(); changed();
  }
  function draw() {
    if (shown) { URL.revokeObjectURL(shown); shown = null; }
    const choose = make("button", { type: "button", textContent: image ? "Another" : "Choose an image" });
    choose.addEventListener("click", () => input.click());
    if (!image) {
      zone.replaceChildren(make("span", { textContent: "Drop an image here" }), choose, input);
      return;
    }
    shown = URL.createObjectURL(image);
    const remove = make("button", { type: "button", textContent: "Remove" });
    remove.addEventListener("click", clear);
    zone.replaceChildren(
      preview(), make("span", { className: "name", textContent: image.name || "an image of the index" }),
      make("span", {}, choose, " ", remove), input);
  }
  /** The chosen image; an empty element until it is known not to be too large. */
  function preview() {
    const place = make("span");
    const picture = make("img", { src: shown, alt: "the image that is looked for" });
    // Decoded only where it is shown: its size, from its header, is looked at before.
    picture.addEventListener("load", () => {
      if (picture.naturalWidth * picture.naturalHeight <= limits.pixels) place.replaceWith(picture);
    });
    return place;
  }
  for (const kind of ["dragover", "dragleave", "drop"]) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.toggle("over", kind === "dragover");
      if (kind === "drop") set(event.dataTransfer.files[0]);
    });
  }
  draw();
  return { get image() { return image; }, set, preview };
}

async function base64(image) {
  if (!image) return "";
  if (image.size > limits.imageBytes) throw new Error(`the image has more than ${limits.imageBytes >> 20} MiB`);
  const address = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("the image cannot be read"));
    reader.readAsDataURL(image);
  });
  return address.slice(address.indexOf(",") + 1);
}

// === Asking ===

/** Asks the server and shows what it says; a newer question replaces one that is under way. */
function asker(path, status, results, show) {
  let running = null;
  const say = (line, isFault = false) => {
    status.textContent = line;
    status.classList.toggle("fault", isFault);
  };
  const ask = async (fields) => {
    running?.abort();
    const own = running = new AbortController();
    results.classList.add("waiting");
    say("Looking …");
    const start = performance.now();
    try {
      const response = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(await fields()),
        signal: own.signal,
      });
      const answer = await response.json().catch(() => ({ error: `the server answers ${response.status}` }));
      if (!response.ok) throw new Error(answer.error);
      say(`${show(answer)} in ${((performance.now() - start) / 1000).toFixed(2)} s`);
    } catch (error) {
      if (own !== running || error.name === "AbortError") return;
      results.replaceChildren();
      say(error instanceof TypeError ? "the server cannot be reached" : error.message, true);
    } finally {
      if (own === running) results.classList.remove("waiting");
    }
  };
  return { ask, say };
}

// === Search ===

const searchDrop = dropZone(by("search-drop"), () => {
  document.querySelector(".beside-image").hidden = !searchDrop?.image;
  if (searchDrop?.image) search();
  else if (searchDrop) showAsked();
});
document.querySelector(".beside-image").hidden = true;

const searching = asker("search", by("search-status"), by("matches"), (answer) => {
  by("matches").replaceChildren(...answer.matches.map(card));
  return answer.matches.length === 1 ? "1 image" : `${answer.matches.length} images`;
});

/** Says beside the results what was looked for, with the image. */
function showAsked() {
  const [text, without] = [by("text").value.trim(), by("without").value.trim()];
  const parts = [];
  if (searchDrop.image) parts.push(searchDrop.preview(), make("span", { className: "name", textContent: searchDrop.image.name || "an image" }));
  const words = [searchDrop.image && text ? `+ ${text}` : text, without && `without ${without}`].filter(Boolean).join(", ");
  if (words) parts.push(make("span", { textContent: words }));
  by("asked").replaceChildren(...parts);
  by("asked").hidden = !parts.length;
}

function search() {
  showAsked();
  if (!by("text").value.trim() && !searchDrop.image && !by("without").value.trim()) {
    by("matches").replaceChildren();
    searching.say("Type a sentence or drop an image.", true);
    return;
  }
  searching.ask(async () => ({
    text: by("text").value,
    image: await base64(searchDrop.image),
    text_weight: Number(by("weight").value),
    without: by("without").value,
    without_weight: Number(by("without-weight").value),
    count: Number(by("count").value),
  }));
}

function card(match) {
  const title = "Search with this image";
  const picture = make("button", { type: "button", className: "picture", title });
  if (hasThumbnails) {
    picture.append(make("img", { src: `thumbnail/${match.place}`, alt: match.caption || match.name, loading: "lazy" }));
    picture.addEventListener("click", async () => {
      const response = await fetch(`thumbnail/${match.place}`);
      if (response.ok) searchDrop.set(new File([await response.blob()], match.name));
    });
  } else {
    picture.classList.add("none");
    picture.disabled = true;
    picture.textContent = "no picture kept";
  }
  const what = make("div", { className: "what" },
    make("span", { className: "score" }, match.score.toFixed(3),
      make("meter", { min: 0, max: 1, value: Math.max(0, match.score) })));
  if (match.caption) what.append(make("span", { className: "caption", textContent: match.caption }));
  if (match.original) {
    what.querySelector(".score").append(make("a", {
      className: "full", href: `original/${match.place}`, target: "_blank", rel: "noopener", textContent: "Full size",
    }));
  }
  what.append(make("span", { className: "name", textContent: match.name }));
  return make("li", {}, picture, what);
}

by("search-form").addEventListener("submit", (event) => { event.preventDefault(); search(); });

// === Classification ===

const classifyDrop = dropZone(by("classify-drop"), () => {});

const classifying = asker("classify", by("classify-status"), by("classes"), (answer) => {
  const best = answer.classes.slice(0, 20);
  by("classes").replaceChildren(...best.map(([name, share]) => make("li", {},
    make("span", { className: "class", textContent: name, title: name }),
    make("meter", { min: 0, max: 1, value: share }),
    make("span", { className: "value", textContent: `${(100 * share).toFixed(1)} %` }))));
  const all = answer.classes.length;
  return all > best.length ? `the likeliest ${best.length} of ${all} classes` : `${all} ${all === 1 ? "class" : "classes"}`;
});

by("classify-form").addEventListener("submit", (event) => {
  event.preventDefault();
  classifying.ask(async () => ({
    image: await base64(classifyDrop.image),
    names: by("names").value.split(/[\n,]/),
    prompt: by("prompt").value,
  }));
});

// === The rest of the page ===

for (const slider of document.querySelectorAll(".slider input")) {
  const show = () => { slider.nextElementSibling.value = slider.value; };
  slider.addEventListener("input", show);
  show();
}
for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => {
    for (const other of document.querySelectorAll("[role=tab]")) {
      other.setAttribute("aria-selected", String(other === tab));
      by(other.getAttribute("aria-controls")).hidden = other !== tab;
    }
  });
}
// What is dropped beside the zones would replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());

searching.say("Type a sentence, drop an image, or both.");
classifying.say("Drop an image and type the classes it may be of.");
fetch("about").then((response) => response.json()).then((about) => {
  by("about").textContent = `${about.images.toLocaleString("en")} images, searched ${about.search}`.replace("searched exact", "exact search");
  hasThumbnails = about.thumbnails;
  Object.assign(limits, about.limits);
});
