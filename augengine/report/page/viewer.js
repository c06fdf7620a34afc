"use strict";
// The rows in `data`: each one's source, edited image and difference, with window, level, slices and outlined regions.
// Texts of the data reach the page as text alone (`textContent`), never as HTML.

const rows = JSON.parse(document.getElementById("data").textContent).rows;
const COLOURS = ["#56b4e9", "#e69f00", "#2fd0a0", "#f0e442", "#e79ac4", "#ff6b3d", "#b8a1ff", "#9ad94c"];
const STEPS = 65535;
const at = (id) => document.getElementById(id);
const state = { rows: rows.map((_, n) => n), place: 0, pixels: null, shown: 0 };

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = String(text);
  if (className) element.className = className;
  return element;
}

const brief = (value) => (value === null || value === undefined ? "none" : String(Number(value.toPrecision(4))));
const row = () => rows[state.rows[state.place]];
const channel = () => row().channels[Math.max(0, at("channel").selectedIndex)];

// Intensities and label codes of a picture: red and green are the bytes of a value, blue is the code.
async function decode(base64, low, high) {
  const image = new Image();
  image.src = "data:image/png;base64," + base64;
  await image.decode();
  const canvas = make("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const bytes = context.getImageData(0, 0, image.width, image.height).data;
  const values = new Float32Array(bytes.length / 4);
  const codes = new Uint8Array(values.length);
  for (let n = 0; n < values.length; n++) {
    values[n] = low + ((bytes[4 * n] * 256 + bytes[4 * n + 1]) / STEPS) * (high - low);
    codes[n] = bytes[4 * n + 2];
  }
  return { values, codes };
}

// Sliders stand at 100 for the window that the row's own intensity range gives.
function contrast() {
  const { range, low, high } = channel();
  const [dark, bright] = range[0] === null ? [low, high] : [range[0] - 0.15 * (range[1] - range[0]), range[1] + 0.15 * (range[1] - range[0])];
  const width = (bright - dark) * (Number(at("window").value) / 100);
  const level = (dark + bright) / 2 + (Number(at("level").value) / 100 - 1) * (bright - dark);
  return { width, level };
}

function grey(value, width, level) {
  const shade = Math.round(255 * Math.min(1, Math.max(0, (value - level) / width + 0.5)));
  return [shade, shade, shade];
}

// Blue below, white at, red above zero.
function signed(value, width) {
  const share = Math.min(1, Math.abs(value) / width);
  const rest = Math.round(255 * (1 - share));
  return value < 0 ? [rest, rest, 255] : [255, rest, rest];
}

function draw() {
  if (!state.pixels) return;
  const [height, columns] = row().size;
  const size = height * columns;
  const from = Number(at("slice").value) * size;
  const { width, level } = contrast();
  const { source, edited } = state.pixels;
  const images = [
    (n) => grey(source.values[n], width, level),
    (n) => grey(edited.values[n], width, level),
    (n) => signed(edited.values[n] - source.values[n], width),
  ];
  images.forEach((colour, number) => {
    const canvas = at("canvas-" + number);
    const zoom = Math.max(1, Math.min(6, Math.floor(480 / columns)));
    const small = new ImageData(columns, height);
    for (let n = 0; n < size; n++) small.data.set([...colour(from + n), 255], 4 * n);
    const flat = make("canvas");
    flat.width = columns;
    flat.height = height;
    flat.getContext("2d").putImageData(small, 0, 0);
    canvas.width = columns * zoom;
    canvas.height = height * zoom;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(flat, 0, 0, canvas.width, canvas.height);
    if (at("regions").checked) outline(context, (number === 0 ? source : edited).codes, from, height, columns, zoom);
  });
  at("window-value").textContent = brief(width);
  at("level-value").textContent = brief(level);
  at("slice-value").textContent = row().slices[at("slice").value] ?? "";
  at("scale").textContent = `blue −${brief(width)}, white 0, red +${brief(width)}`;
}

// Codes that are outlined: those of lesions alone, unless there are none or all are asked for.
function outlined() {
  const { labels, lesions } = row();
  const all = at("every").checked || !lesions.length;
  return new Set(Object.entries(labels).filter(([name]) => all || lesions.includes(name)).map(([, code]) => code));
}

const colourOf = (code) => COLOURS[Object.values(row().labels).indexOf(code) % COLOURS.length] ?? COLOURS[0];

// Borders between pixels of different codes, on the side of the one that is no background.
function outline(context, codes, from, height, columns, zoom) {
  const line = Math.max(1, Math.round(zoom / 3));
  const kept = outlined();
  const code = (i, j) => {
    const found = i < 0 || j < 0 || i >= height || j >= columns ? 0 : codes[from + i * columns + j];
    return kept.has(found) ? found : 0;
  };
  for (let i = 0; i < height; i++) {
    for (let j = 0; j < columns; j++) {
      const own = code(i, j);
      if (!own) continue;
      context.fillStyle = colourOf(own);
      const [x, y] = [j * zoom, i * zoom];
      if (code(i - 1, j) !== own) context.fillRect(x, y, zoom, line);
      if (code(i + 1, j) !== own) context.fillRect(x, y + zoom - line, zoom, line);
      if (code(i, j - 1) !== own) context.fillRect(x, y, line, zoom);
      if (code(i, j + 1) !== own) context.fillRect(x + zoom - line, y, line, zoom);
    }
  }
}

function table(names, lines) {
  const found = make("table");
  const head = found.appendChild(make("thead")).appendChild(make("tr"));
  names.forEach((name) => head.append(make("th", name)));
  const body = found.appendChild(make("tbody"));
  for (const line of lines) {
    const shown = body.appendChild(make("tr"));
    line.forEach((value) => shown.append(make("td", typeof value === "number" ? brief(value) : value, typeof value === "number" ? "number" : "")));
  }
  const wide = make("div", null, "wide");
  wide.tabIndex = 0;
  wide.setAttribute("role", "region");
  wide.setAttribute("aria-label", "table: " + names.filter(Boolean).join(", "));
  wide.append(found);
  return wide;
}

function facts() {
  const of = row();
  const list = make("dl");
  const add = (name, value) => list.append(make("dt", name), make("dd", value));
  add("row", of.id);
  add("outcome", of.outcome);
  if (of.reason) add("reason", of.reason);
  add("source", `${of.source}, subject ${of.subject}, split ${of.split ?? "none"}`);
  add("run, policy", `${of.run}, ${of.policy}`);
  const bound = (value) => (value === null ? "" : value);
  const gates = of.gates.map((g) => [g.name, g.value === null ? "no number" : g.value, bound(g.min), bound(g.max), g.passed ? "kept" : "broken", g.error ?? ""]);
  const parts = [list, make("h3", "Gates"), table(["gate", "value", "min", "max", "", ""], gates)];
  const changed = of.volumes.filter(([, before, after]) => before !== after);
  if (changed.length) {
    const values = changed.map(([name, before, after]) => [name, before ?? 0, after ?? 0]);
    parts.push(make("h3", "Labels that changed, ml"), table(["label", "source", "edited"], values));
  }
  const commands = make("pre", of.commands.join("\n"));
  commands.tabIndex = 0;
  parts.push(make("h3", "Commands"), commands);
  at("facts").replaceChildren(...parts);
  at("facts").querySelectorAll("td").forEach((cell) => {
    if (cell.textContent === "broken") cell.className = "broken";
  });
}

function legend() {
  const kept = outlined();
  const named = Object.entries(row().labels).filter(([, code]) => kept.has(code));
  const items = named.map(([name, code]) => {
    const item = make("span");
    const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    picture.setAttribute("viewBox", "0 0 12 12");
    picture.setAttribute("aria-hidden", "true");
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    Object.entries({ width: 12, height: 12, fill: colourOf(code) }).forEach(([key, value]) => mark.setAttribute(key, value));
    picture.append(mark);
    item.append(picture, name);
    return item;
  });
  at("every").parentElement.hidden = !row().lesions.length;
  at("legend").replaceChildren(...(row().labelled.some(Boolean) ? items : [make("span", "no label map")]));
}

async function load() {
  const turn = ++state.shown;
  const { source, edited, low, high, no_numbers: lost } = channel();
  const pixels = { source: await decode(source, low, high), edited: await decode(edited, low, high) };
  if (turn !== state.shown) return;
  state.pixels = pixels;
  const told = `Row ${state.place + 1} of ${state.rows.length}: ${row().outcome}`;
  at("under").textContent = told + (lost ? `; ${lost} values are no numbers and shown as the lowest` : "");
  draw();
  document.body.dataset.drawn = `${row().id} ${channel().name}`;
}

function open(place) {
  if (!state.rows.length) return;
  const name = at("channel").value;
  state.place = (place + state.rows.length) % state.rows.length;
  const of = row();
  at("row").selectedIndex = state.place;
  at("channel").replaceChildren(...of.channels.map((c) => new Option(c.name)));
  const same = of.channels.findIndex((c) => c.name === name);
  at("channel").selectedIndex = same < 0 ? of.changed_most : same;
  at("slice").max = of.slices.length - 1;
  at("slice").value = Math.floor((of.slices.length - 1) / 2);
  at("slice").parentElement.hidden = of.slices.length < 2;
  of.scans.forEach((text, n) => (at("scan-" + n).textContent = text));
  legend();
  facts();
  return load();
}

function filter() {
  const wanted = at("filter").value;
  state.rows = rows.map((_, n) => n).filter((n) => !wanted || rows[n].outcome === wanted);
  at("row").replaceChildren(...state.rows.map((n) => new Option(`${rows[n].outcome}: ${rows[n].source} → ${rows[n].id}`)));
  at("panels").hidden = !state.rows.length;
  if (!state.rows.length) {
    at("under").textContent = `No row shown here is ${wanted}.`;
    at("facts").replaceChildren();
    return;
  }
  return open(0);
}

function slide(id, step) {
  const slider = at(id);
  slider.value = Number(slider.value) + step;
  draw();
}

// A drag over a picture: to the side changes the window, up and down the level.
function drag(event) {
  const start = [event.clientX, event.clientY, Number(at("window").value), Number(at("level").value)];
  const move = (now) => {
    at("window").value = start[2] + (now.clientX - start[0]) / 2;
    at("level").value = start[3] - (now.clientY - start[1]) / 2;
    draw();
  };
  const stop = () => {
    removeEventListener("pointermove", move);
    removeEventListener("pointerup", stop);
    removeEventListener("pointercancel", stop);
  };
  addEventListener("pointermove", move);
  addEventListener("pointerup", stop);
  addEventListener("pointercancel", stop);
}

const KEYS = {
  ArrowLeft: () => open(state.place - 1),
  ArrowRight: () => open(state.place + 1),
  ArrowUp: () => slide("slice", 1),
  ArrowDown: () => slide("slice", -1),
};

function start() {
  if (!rows.length) return;
  at("view").hidden = false;
  at("previous").addEventListener("click", () => open(state.place - 1));
  at("next").addEventListener("click", () => open(state.place + 1));
  at("row").addEventListener("change", () => open(at("row").selectedIndex));
  at("filter").addEventListener("change", filter);
  at("channel").addEventListener("change", load);
  for (const id of ["slice", "window", "level"]) at(id).addEventListener("input", draw);
  at("regions").addEventListener("change", draw);
  at("every").addEventListener("change", () => {
    legend();
    draw();
  });
  at("reset").addEventListener("click", () => {
    at("window").value = 100;
    at("level").value = 100;
    draw();
  });
  at("panels").addEventListener("keydown", (event) => {
    if (!KEYS[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  at("panels").addEventListener("pointerdown", (event) => event.pointerType === "mouse" && drag(event));
  filter();
}

start();
