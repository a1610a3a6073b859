// The records of the runs: from TensorBoard's routes, or from the page itself.

// How often maps are asked for that are not there yet.
const PATIENCE = 3;
// The thickness of the outline of a mask in pixels of the image, which is mostly shown smaller.
const THICK = 2;

/** The runs that TensorBoard serves at the routes below an address. */
export class ServedSource {
  isLive = true;
  #address;

  constructor(address) {
    this.#address = address;
  }

  /** List the runs: name, prefix, when they began and were last written to, and their newest verdict in short. */
  async list() {
    return this.#get("runs");
  }

  /** Return the entries of a run that were written after a time; without a time, its description, too. */
  async log(run, since) {
    return this.#get("log", { run: run.run, prefix: run.prefix, since });
  }

  /** Return the packed maps of a layer that were written after a time; without a time, all of them. */
  async maps(run, layer, since) {
    return this.#get("maps", { run: run.run, prefix: run.prefix, layer, since });
  }

  async #get(route, values = {}) {
    const given = Object.entries(values).filter(([, value]) => value !== null);
    const answer = await fetch(new URL(`${route}?${new URLSearchParams(given)}`, this.#address));
    let content;
    try {
      content = await answer.json();
    } catch {
      throw new Error(`TensorBoard does not answer (${answer.status}). Is it still running?`);
    }
    if (!answer.ok) throw new Error(content.error ?? `TensorBoard answers ${answer.status}.`);
    return content;
  }
}

/** The runs of a page in one file. */
export class FrozenSource {
  isLive = false;

  constructor(data) {
    this.runs = data.runs;
  }

  async list() {
    return this.runs.map(({ run, start, entries }) => {
      const { epoch, verdict } = entries.at(-1);
      return { run, prefix: start.prefix, began: 0, last: 0, newest: { epoch, ...verdict } };
    });
  }

  async log(run) {
    const { start, entries, others } = this.#find(run);
    return { began: 0, start, entries, others: rowsOf(others), until: 0 };
  }

  async maps(run, layer) {
    return { began: 0, ...(this.#find(run).maps[layer] ?? { steps: [], maps: [] }), until: 0 };
  }

  #find({ run, prefix }) {
    return this.runs.find((each) => each.run === run && each.start.prefix === prefix);
  }
}

/** Return the entries of which a page in one file has numbers only. */
function rowsOf({ step, epoch, scalars, judged = [], probe_accuracy = [] }) {
  const columns = Object.entries(scalars);
  return step.map((each, i) => ({
    step: each,
    epoch: epoch[i],
    judged: judged[i],
    verdict: { probe_accuracy: probe_accuracy[i] },
    scalars: Object.fromEntries(columns.map(([name, values]) => [name, values[i]])),
  }));
}

/** Return the heading of an epoch; the entry before training has the epoch -1. */
export function headingOf(epoch) {
  return epoch < 0 ? "start" : `epoch ${epoch}`;
}

/**
 * A run of one callback, with what has been read of it so far.
 *
 * A run that is started anew in the same folder, or resumed, is another log.
 *
 * @param run as the source lists it.
 * @param source of the records.
 */
export class Log {
  #source;
  #pictures = new Map();
  // The newest record of an entry that has been read, by the time at which it was written.
  #until = null;
  // The reading of entries that is under way.
  #reading = null;
  // Counts the readings that brought new entries.
  #version = 0;
  // Layer -> its maps, and the version at which they were read.
  #layers = new Map();
  // Layer -> a promise of its largest value.
  #largest = new Map();
  #colours = null;

  constructor(run, source) {
    this.run = run;
    this.#source = source;
    this.began = run.began;
    this.start = null;
    this.entries = [];
    // All entries by their scalars, also those without maps and answers.
    this.history = [];
  }

  get key() {
    return keyOf(this.run);
  }

  /** Return the name of the run; the prefix tells the callbacks of one training apart. */
  get name() {
    // With --logdir_spec a run is called "name/.", and without folders below the logs ".".
    const run = this.run.run.replace(/\/\.$/, "").replace(/^\.$/, "this run");
    return this.run.prefix === "gradcam" ? run : `${run} · ${this.run.prefix}`;
  }

  /** Return true if the source has more than what has been read. */
  get isBehind() {
    return !this.start || this.run.last !== this.#until || this.#isLate;
  }

  /** Return true if maps could not be read, or were not there yet. */
  get #isLate() {
    return [...this.#layers.values()].some(({ version }) => version === null);
  }

  /** Read entries that are new since the last time. Return true if there is anything new to draw. */
  refresh() {
    // One reading at a time, so that nothing is read twice.
    this.#reading ??= this.#refresh().finally(() => { this.#reading = null; });
    return this.#reading;
  }

  async #refresh() {
    const wasLate = this.#isLate;
    const { began, start, entries, others = [], until } = await this.#source.log(this.run, this.#until);
    // A new run has begun in the meantime. The next list of the runs says so.
    if (began !== this.began) return false;
    this.start ??= start;
    // A validation of the same step may have been logged again.
    const fresh = new Map(entries.map((entry) => [entry.step, { ...entry, heading: headingOf(entry.epoch) }]));
    this.entries = bySteps([...this.entries.filter(({ step }) => !fresh.has(step)), ...fresh.values()]);
    this.history = bySteps([...this.entries, ...others]);
    this.#until = until;
    if (fresh.size) {
      this.#version += 1;
      this.#largest.clear();
      for (const held of this.#layers.values()) held.patience = PATIENCE;
    }
    return fresh.size > 0 || wasLate;
  }

  /** Return the maps of a layer at a step: { n, h, w, maxima, units }, or null if they are not there. */
  async mapsAt(layer, step) {
    const held = (await this.prefetch(layer)).get(step);
    if (!held) return null;
    held.unpacked ??= unpack(held.packed).catch(() => {
      throw new Error(`The maps of ${this.name} at ${layer}, step ${step}, are damaged.`);
    });
    return held.unpacked;
  }

  /** Read the maps of a layer that are new since the last time. Return a map from steps to all that have been read. */
  prefetch(layer) {
    if (!this.#layers.has(layer)) {
      this.#layers.set(layer, { version: null, until: null, steps: new Map(), reading: Promise.resolve(), patience: PATIENCE });
    }
    const held = this.#layers.get(layer);
    if (held.version !== this.#version) {
      held.version = this.#version;
      // One after the other, so that nothing is read twice.
      const read = () => this.#read(layer, held);
      held.reading = held.reading.then(read, read);
      held.reading.catch(() => { held.version = null; });
    }
    return held.reading;
  }

  async #read(layer, held) {
    const { began, until, steps, maps } = await this.#source.maps(this.run, layer, held.until);
    if (began !== this.began) return held.steps;
    steps.forEach((step, i) => held.steps.set(step, { packed: maps[i], unpacked: null }));
    held.until = until;
    // TensorBoard may have read an entry a moment before its maps. They are asked for again, but not for ever.
    const isThere = held.steps.has(this.entries.at(-1)?.step) || !this.start.layers.includes(layer);
    if (!isThere && held.patience-- > 0) held.version = null;
    return held.steps;
  }

  /** Return the largest value of a layer's maps over all entries that have been read. */
  async largest(layer) {
    if (!this.#largest.has(layer)) this.#largest.set(layer, this.#findLargest(layer));
    return this.#largest.get(layer);
  }

  async #findLargest(layer) {
    const all = await Promise.all(this.entries.map(({ step }) => this.mapsAt(layer, step)));
    return Math.max(0, ...all.filter(Boolean).map(({ maxima }) => Math.max(...maxima)));
  }

  /** Return the colours of heat, from none to the hottest: 256 times red, green and blue. */
  get colours() {
    this.#colours ??= decode(this.start.colours);
    return this.#colours;
  }

  /** Return a probe image: its pixels in colour, in grey, and the outline of its mask. */
  async picture(i) {
    if (!this.#pictures.has(i)) this.#pictures.set(i, readPicture(this.start.images[i], this.start.masks[i]));
    return this.#pictures.get(i);
  }

  /** Return the number of the image with a name; -1 if there is none. */
  find(name) {
    return this.start.names.indexOf(name);
  }
}

function bySteps(entries) {
  return entries.sort((a, b) => a.step - b.step);
}

/** Return what tells the runs of a source apart. */
export function keyOf({ run, prefix }) {
  return JSON.stringify([run, prefix]);
}

/** Return an image of a record as an address. */
export function imageAddress(base64) {
  return `data:image/jpeg;base64,${base64}`;
}

function decode(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

/** Unpack the maps of a layer; `gradcam_callback.run.recording` says what the bytes mean. */
export async function unpack(base64) {
  const stream = new Blob([decode(base64)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const content = await new Response(stream).arrayBuffer();
  const [n, height, width] = new Uint32Array(content, 0, 3);
  const maxima = new Float32Array(content, 12, n);
  const units = new Uint8Array(content, 12 + 4 * n);
  return { n, h: height, w: width, maxima, units };
}

async function readPicture(jpeg, mask) {
  const colour = await pixelsOf(imageAddress(jpeg));
  const { width, height } = colour;
  const grey = new Uint8ClampedArray(width * height);
  for (let i = 0; i < grey.length; i++) {
    const [red, green, blue] = colour.data.subarray(4 * i, 4 * i + 3);
    grey[i] = 0.299 * red + 0.587 * green + 0.114 * blue;
  }
  const outline = mask === null ? null : outlineOf(await pixelsOf(`data:image/png;base64,${mask}`));
  return { width, height, colour, grey, outline };
}

async function pixelsOf(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** Return the places of the pixels of the object that are close to the background. The edge of the image is no such place. */
function outlineOf({ data, width, height }) {
  const inside = (x, y) => data[4 * (Math.min(Math.max(y, 0), height - 1) * width + Math.min(Math.max(x, 0), width - 1))] > 127;
  const places = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const isClose = !inside(x - THICK, y) || !inside(x + THICK, y) || !inside(x, y - THICK) || !inside(x, y + THICK);
      if (inside(x, y) && isClose) places.push(y * width + x);
    }
  }
  return places;
}
