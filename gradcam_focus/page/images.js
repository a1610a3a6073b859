// The probe images: cards with the overlays of each run, and one image through all layers and epochs.
import { breakable, h, mark, named, percent, tone, whole } from "./dom.js";
import { drawHeat, drawPicture, label } from "./heat.js";

// The longer side of a small overlay in pixels, and how many epochs one image is shown at.
const SMALL = 120;
const COLUMNS = 24;

/**
 * The card of one probe image: the photograph, and an overlay for each run.
 *
 * @param name of the image.
 * @param logs the shown runs that have this image.
 * @param open is called if the card is clicked.
 */
export class Card {
  constructor(name, logs, open) {
    this.name = name;
    this.logs = logs;
    const [first] = logs;
    const labels = logs.map((log) => log.start.labels?.[log.find(name)]);
    const [label] = labels.every((each) => each === labels[0]) ? labels : [];
    // Runs on other data may have other images of the same name. Each of them then shows its own photograph.
    const isOne = logs.every((log) => log.start.images[log.find(name)] === first.start.images[first.find(name)]);
    this.photographs = (isOne ? [first] : logs).map((log) => ({
      log,
      canvas: h("canvas", { role: "img", "aria-label": `${name}, the photograph` }),
    }));
    this.views = logs.map((log, i) => ({
      log,
      // Other images of the same name may be of other classes, too.
      label: labels[i] === label ? null : h("span", { className: "run" }, "label: ", named(labels[i])),
      canvas: h("canvas", { role: "img" }),
      run: logs.length > 1 ? h("span", { className: "run" }) : null,
      text: h("span", { className: "answer" }),
    }));
    const figures = this.views.map(({ label: own, canvas, run, text }, i) => {
      const photograph = isOne ? null : h("span", { className: "small" }, this.photographs[i].canvas);
      return h("span", { className: "picture" }, canvas, h("span", { className: "caption" }, photograph, h("span", {}, run, own, text)));
    });
    if (isOne) {
      const caption = h("span", { className: "caption" }, "photograph");
      figures.unshift(h("span", { className: "picture" }, this.photographs[0].canvas, caption));
    }
    this.element = h(
      "button",
      { className: "card", type: "button", title: "Open this image through all layers and epochs", onclick: () => open(name) },
      h("span", { className: "name" }, named(name), label ? h("span", { className: "label" }, "label: ", named(label)) : null),
      h("span", { className: "pictures" }, ...figures),
    );
    this.isDrawn = false;
  }

  /** Draw the overlays of a layer. `scene` says what the page shows, see `Focus.scene` in focus.js. */
  async draw(scene) {
    if (!this.isDrawn) {
      this.isDrawn = true;
      for (const { log, canvas } of this.photographs) drawPicture(canvas, await log.picture(log.find(this.name)));
    }
    await Promise.all(this.views.map((view) => this.#drawView(view, scene)));
  }

  async #drawView({ log, canvas, run, text }, scene) {
    const entry = scene.entryOf(log);
    const i = log.find(this.name);
    run?.replaceChildren(...scene.titleOf(log));
    say(text, entry, i);
    canvas.setAttribute("aria-label", describe(this.name, entry, i, scene.layer));
    const [picture, maps] = await Promise.all([log.picture(i), entry ? log.mapsAt(scene.layer, entry.step) : null]);
    if (!scene.isCurrent()) return;
    if (maps) {
      drawHeat(canvas, maps, i, { ...picture, picture, outlined: true, ...(await scene.lookOf(log, maps, i)) });
    } else {
      blank(canvas, picture, entry ? "not watched in this run" : "no entry yet");
    }
  }
}

/** One image through all layers at the chosen epoch, and through all epochs at the chosen layer. */
export class Detail {
  constructor(close) {
    this.title = h("h2");
    this.body = h("div");
    this.element = h(
      "dialog",
      { className: "detail", "aria-label": "one image through all layers and epochs" },
      h("header", {}, this.title, h("button", { type: "button", onclick: () => this.element.close(), title: "Close (Esc)" }, "Close ✕")),
      this.body,
    );
    this.element.addEventListener("close", close);
    this.name = null;
  }

  open(name) {
    this.name = name;
    if (!this.element.open) this.element.showModal();
  }

  async draw(scene) {
    if (this.name === null || !this.element.open) return;
    const name = this.name;
    const logs = scene.logs.filter((log) => log.find(name) >= 0);
    // A run that was started anew may have other images.
    if (!logs.length) return this.element.close();
    const sections = await Promise.all(logs.map((log) => this.#section(log, name, scene)));
    if (!scene.isCurrent() || this.name !== name) return;
    this.title.replaceChildren(named(name));
    this.body.replaceChildren(...sections);
  }

  async #section(log, name, scene) {
    const i = log.find(name);
    const entry = scene.entryOf(log);
    const picture = await log.picture(i);
    const photograph = h("canvas", { role: "img", "aria-label": `${name}, the photograph` });
    drawPicture(photograph, picture);
    const answer = h("p", { className: "answer" });
    say(answer, entry, i);
    const layers = [];
    for (const layer of entry ? log.start.layers : []) {
      const maps = await log.mapsAt(layer, entry.step);
      if (!maps) continue;
      const look = await scene.lookOf(log, maps, i, layer);
      const size = fit(picture, SMALL);
      const heatmap = h("canvas", { role: "img", "aria-label": `heatmap at ${layer}` });
      drawHeat(heatmap, maps, i, { ...size, picture: null, ...look });
      const overlay = h("canvas", { role: "img", "aria-label": `overlay at ${layer}` });
      drawHeat(overlay, maps, i, { ...size, picture: shrunk(picture, size), ...look });
      const chosen = layer === scene.layer ? "chosen" : "";
      layers.push(h("figure", { className: chosen }, heatmap, overlay, h("figcaption", {}, ...breakable(layer))));
    }
    const epochs = [];
    const shown = spread(log.entries, COLUMNS);
    for (const each of shown) {
      const maps = await log.mapsAt(scene.layer, each.step);
      if (!maps) continue;
      const canvas = h("canvas", { role: "img", "aria-label": `overlay at ${scene.layer}, ${each.heading}` });
      const size = fit(picture, SMALL);
      drawHeat(canvas, maps, i, { ...size, picture: shrunk(picture, size), ...(await scene.lookOf(log, maps, i)) });
      const said = h("span", { className: "answer" });
      say(said, each, i, true);
      const chosen = each === entry ? "chosen" : "";
      epochs.push(h("figure", { className: chosen }, canvas, h("figcaption", {}, h("span", {}, each.heading), said)));
    }
    return h(
      "section",
      {},
      scene.logs.length > 1 ? h("h3", {}, named(log.name)) : null,
      h("div", { className: "head" }, photograph, answer),
      h("h4", {}, `Through all layers${entry ? `, ${entry.heading}` : ""}: heatmap above, overlay below`),
      h("div", { className: "strip" }, ...layers),
      h("h4", {}, `Through ${scene.countOf(log, shown.length)} at ${scene.layer}`),
      h("div", { className: "strip" }, ...epochs),
    );
  }
}

/** Say what the network answers for the i-th image. */
function say(element, entry, i, short = false) {
  const [prediction, probability, correct, explained] = entry?.predictions[i] ?? [];
  element.className = `answer ${tone(correct)}`;
  if (prediction === undefined) {
    element.replaceChildren();
  } else if (short) {
    element.replaceChildren(named(prediction), " ", whole(`${percent(probability)} ${{ true: "✓", false: "✗" }[correct] ?? ""}`));
  } else {
    const why = explained && explained !== prediction ? ["; map of ", named(explained)] : [];
    const certainty = [percent(probability), mark(correct)].filter(Boolean).flatMap((text) => [" ", whole(text)]);
    element.replaceChildren(named(prediction), ...certainty, ...why);
  }
}

function describe(name, entry, i, layer) {
  const [prediction, probability, correct] = entry?.predictions[i] ?? [];
  const answer = prediction === undefined ? "" : `: ${prediction} ${percent(probability)} ${mark(correct)}`;
  return `focus on ${name} at ${layer}, ${entry?.heading ?? "no entry"}${answer}`;
}

function blank(canvas, { width, height }, text) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.fillStyle = "#3f3f46";
  context.fillRect(0, 0, width, height);
  label(context, width, height, text);
}

function fit({ width, height }, longest) {
  const factor = longest / Math.max(width, height);
  return { width: Math.max(1, Math.round(width * factor)), height: Math.max(1, Math.round(height * factor)) };
}

/** Return a picture in a smaller size, without its outline; each size is made once. */
function shrunk(picture, { width, height }) {
  picture.smaller ??= new Map();
  const key = `${width}x${height}`;
  if (!picture.smaller.has(key)) {
    const grey = new Uint8ClampedArray(width * height);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) grey[y * width + x] = meanOf(picture, x / width, (x + 1) / width, y / height, (y + 1) / height);
    }
    picture.smaller.set(key, { width, height, grey, outline: null });
  }
  return picture.smaller.get(key);
}

function meanOf({ grey, width, height }, left, right, top, bottom) {
  let sum = 0;
  let count = 0;
  const [x0, y0] = [Math.floor(left * width), Math.floor(top * height)];
  for (let y = y0; y < Math.max(y0 + 1, Math.floor(bottom * height)); y++) {
    for (let x = x0; x < Math.max(x0 + 1, Math.floor(right * width)); x++) {
      sum += grey[y * width + x];
      count++;
    }
  }
  return sum / count;
}

/** Return at most so many of the entries, evenly spread, with the first and the last. */
function spread(entries, most) {
  if (entries.length <= most) return entries;
  return Array.from({ length: most }, (_, i) => entries[Math.round((i * (entries.length - 1)) / (most - 1))]);
}
