// The records of the runs: from TensorBoard's routes, or from the page itself.

/** The runs that TensorBoard serves at the routes below an address. */
export class ServedSource {
  isLive = true;
  #address;

  constructor(address) {
    this.#address = address;
  }

  /** List the runs: name, prefix and the step of the last entry. */
  async list() {
    return this.#get("runs");
  }

  /** Return the description of a run and its entries after a step. */
  async log(run, after) {
    return this.#get("log", { run: run.run, prefix: run.prefix, after });
  }

  /** Return the packed maps of a layer after a step. */
  async maps(run, layer, after) {
    return this.#get("maps", { run: run.run, prefix: run.prefix, layer, after });
  }

  async #get(route, values = {}) {
    const answer = await fetch(new URL(`${route}?${new URLSearchParams(values)}`, this.#address));
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
    return this.runs.map(({ run, start, entries }) => ({ run, prefix: start.prefix, last: entries.at(-1).step }));
  }

  async log(run) {
    const { start, entries } = this.#find(run);
    return { start, entries };
  }

  async maps(run, layer) {
    return this.#find(run).maps[layer] ?? { steps: [], maps: [] };
  }

  #find({ run, prefix }) {
    return this.runs.find((each) => each.run === run && each.start.prefix === prefix);
  }
}

/** A run of one callback, with what has been read of it so far. */
export class Log {
  #source;
  #pictures = new Map();
  // Layer -> a promise of step -> packed maps.
  #packed = new Map();
  #unpacked = new Map();
  #largest = new Map();

  constructor(run, source) {
    this.run = run;
    this.#source = source;
    this.start = null;
    this.entries = [];
  }

  get key() {
    return JSON.stringify([this.run.run, this.run.prefix]);
  }

  /** Return the name of the run; the prefix tells the callbacks of one training apart. */
  get name() {
    // With --logdir_spec a run is called "name/.", and without folders below the logs ".".
    const run = this.run.run.replace(/\/\.$/, "").replace(/^\.$/, "this run");
    return this.run.prefix === "gradcam" ? run : `${run} · ${this.run.prefix}`;
  }

  get lastStep() {
    return this.entries.at(-1)?.step ?? -1;
  }

  /** Read entries that are new since the last time. Return true if there were any. */
  async refresh() {
    const { start, entries } = await this.#source.log(this.run, this.lastStep);
    this.start = start;
    // Two readings at once may bring the same entries.
    const fresh = entries.filter(({ step }) => step > this.lastStep);
    for (const entry of fresh) this.entries.push({ ...entry, heading: entry.epoch < 0 ? "start" : `epoch ${entry.epoch}` });
    if (fresh.length) {
      this.#packed.clear();
      this.#largest.clear();
    }
    return fresh.length > 0;
  }

  /** Forget what has been read. */
  forget() {
    this.start = null;
    this.entries = [];
    for (const cache of [this.#pictures, this.#packed, this.#unpacked, this.#largest]) cache.clear();
  }

  /** Return the maps of a layer at a step: { n, h, w, maxima, units }, or null if they are not there. */
  async mapsAt(layer, step) {
    const key = `${step} ${layer}`;
    if (!this.#unpacked.has(key)) {
      const packed = (await this.prefetch(layer)).get(step);
      if (packed === undefined) return null;
      this.#unpacked.set(key, await unpack(packed));
    }
    return this.#unpacked.get(key);
  }

  /** Read the maps of a layer at all steps. */
  prefetch(layer) {
    if (!this.#packed.has(layer)) {
      const reading = this.#source
        .maps(this.run, layer, -1)
        .then(({ steps, maps }) => new Map(steps.map((step, i) => [step, maps[i]])));
      this.#packed.set(layer, reading);
      reading.catch(() => this.#packed.delete(layer));
    }
    return this.#packed.get(layer);
  }

  /** Return the largest value of a layer's maps over all entries that have been read. */
  async largest(layer) {
    if (!this.#largest.has(layer)) {
      const all = await Promise.all(this.entries.map(({ step }) => this.mapsAt(layer, step)));
      this.#largest.set(layer, Math.max(0, ...all.filter(Boolean).map(({ maxima }) => Math.max(...maxima))));
    }
    return this.#largest.get(layer);
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

/** Return an image of a record as an address. */
export function imageAddress(base64) {
  return `data:image/jpeg;base64,${base64}`;
}

export function decode(base64) {
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

/** Return the places of the pixels of the object that touch the background. The edge of the image is no such place. */
function outlineOf({ data, width, height }) {
  const inside = (x, y) => data[4 * (Math.min(Math.max(y, 0), height - 1) * width + Math.min(Math.max(x, 0), width - 1))] > 127;
  const places = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const touches = !inside(x - 1, y) || !inside(x + 1, y) || !inside(x, y - 1) || !inside(x, y + 1);
      if (inside(x, y) && touches) places.push(y * width + x);
    }
  }
  return places;
}
