// A photograph with a mask that is drawn on it. The mask is opaque where the object is, and transparent elsewhere.

const OUTLINE = "#ffe11a", VEIL = "rgba(6, 8, 14, 0.66)", WIDTH = 2;
const MOST_STEPS = 30;

function blank(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

export class MaskCanvas {
  constructor(canvas, stage) {
    this.canvas = canvas;
    this.stage = stage;
    this.photograph = null;
    this.steps = [];
    this.cursor = null;
    this.rubber = null;
    this.scheduled = false;
    new ResizeObserver(() => this.resize()).observe(stage);
  }

  // Start with a photograph. `full` is the width and height of its file, which masks are sent in.
  open(photograph, full) {
    this.photograph = photograph;
    this.full = full;
    this.mask = blank(photograph.width, photograph.height);
    // The mask is read at each step, which is slow from the memory of a graphics card.
    this.pen = this.mask.getContext("2d", { willReadFrequently: true });
    this.steps = [];
    this.cursor = this.rubber = null;
    this.share = 0;
    this.resize();
  }

  // Without a photograph nothing is marked or shown, so that the next one has none of it if it cannot be opened.
  close() {
    this.photograph = null;
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.steps = [];
    this.share = 0;
  }

  get edited() {
    return this.steps.length > 0;
  }

  get isEmpty() {
    return this.share === 0;
  }

  // Take a black and white image in place of the mask, or add it.
  put(image, adds = false) {
    const { width, height } = this.mask;
    const levels = blank(width, height);
    const context = levels.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height);
    for (let i = 0; i < pixels.data.length; i += 4) {
      pixels.data[i + 3] = pixels.data[i] > 127 ? 255 : 0;
    }
    context.putImageData(pixels, 0, 0);
    if (!adds) this.pen.clearRect(0, 0, width, height);
    this.pen.drawImage(levels, 0, 0);
    this.changed();
  }

  // Keep the mask as it is, to come back to it.
  keep() {
    this.steps.push(this.alphas());
    if (this.steps.length > MOST_STEPS) this.steps.shift();
  }

  back() {
    const alphas = this.steps.pop();
    const pixels = this.pen.createImageData(this.mask.width, this.mask.height);
    for (let i = 0; i < alphas.length; i += 1) pixels.data[4 * i] = pixels.data[4 * i + 3] = alphas[i];
    this.pen.putImageData(pixels, 0, 0);
    this.changed();
  }

  clear([left, top, right, bottom] = [0, 0, this.mask.width, this.mask.height]) {
    this.pen.clearRect(left, top, right - left, bottom - top);
    this.changed();
  }

  stroke(from, to, radius, removes) {
    this.pen.globalCompositeOperation = removes ? "destination-out" : "source-over";
    this.pen.strokeStyle = "#fff";
    this.pen.lineWidth = 2 * radius;
    this.pen.lineCap = "round";
    this.pen.beginPath();
    this.pen.moveTo(...from);
    this.pen.lineTo(...to);
    this.pen.stroke();
    // A line without a length paints nothing, and a click is one.
    this.pen.fillStyle = "#fff";
    this.pen.beginPath();
    this.pen.arc(...to, radius, 0, 2 * Math.PI);
    this.pen.fill();
    this.pen.globalCompositeOperation = "source-over";
    // It is counted at the end of the stroke.
    if (this.isEmpty && !removes) this.share = Number.EPSILON;
    this.draw();
  }

  changed() {
    const alphas = this.alphas();
    let inside = 0;
    for (const alpha of alphas) inside += alpha > 127;
    this.share = inside / alphas.length;
    this.draw();
  }

  alphas() {
    const { data } = this.pen.getImageData(0, 0, this.mask.width, this.mask.height);
    const alphas = new Uint8ClampedArray(data.length / 4);
    for (let i = 0; i < alphas.length; i += 1) alphas[i] = data[4 * i + 3];
    return alphas;
  }

  // The mask as PNG in the size of the file: white on the object, on black.
  async send() {
    const whole = blank(...this.full);
    const context = whole.getContext("2d");
    context.fillRect(0, 0, ...this.full);
    const white = blank(this.mask.width, this.mask.height);
    const paint = white.getContext("2d");
    paint.drawImage(this.mask, 0, 0);
    paint.globalCompositeOperation = "source-in";
    paint.fillStyle = "#fff";
    paint.fillRect(0, 0, white.width, white.height);
    context.drawImage(white, 0, 0, ...this.full);
    return new Promise((resolve) => whole.toBlob(resolve, "image/png"));
  }

  // Pixels of the mask for each pixel of the page.
  get scale() {
    return this.mask.width / this.canvas.clientWidth;
  }

  // A point of an event in pixels of the mask.
  at(event) {
    const place = this.canvas.getBoundingClientRect();
    return [(event.clientX - place.left) * this.scale, (event.clientY - place.top) * this.scale];
  }

  resize() {
    if (!this.photograph || !this.stage.clientWidth) return;
    const { width, height } = this.photograph;
    const factor = Math.min(this.stage.clientWidth / width, this.stage.clientHeight / height);
    const shown = [Math.max(1, Math.round(width * factor)), Math.max(1, Math.round(height * factor))];
    this.canvas.style.width = `${shown[0]}px`;
    this.canvas.style.height = `${shown[1]}px`;
    const dense = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(shown[0] * dense);
    this.canvas.height = Math.round(shown[1] * dense);
    this.layers = ["base", "veil", "inside", "ring"].map(() => blank(this.canvas.width, this.canvas.height));
    this.layers[0].getContext("2d").drawImage(this.photograph, 0, 0, this.canvas.width, this.canvas.height);
    this.draw();
  }

  draw() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      if (this.photograph && this.layers) this.paint();
    });
  }

  paint() {
    const { width, height } = this.canvas;
    const [base, veil, inside, ring] = this.layers;
    const context = this.canvas.getContext("2d");
    const dense = window.devicePixelRatio || 1;
    let layer = inside.getContext("2d");
    layer.clearRect(0, 0, width, height);
    layer.drawImage(this.mask, 0, 0, width, height);

    layer = veil.getContext("2d");
    layer.globalCompositeOperation = "copy";
    layer.fillStyle = VEIL;
    layer.fillRect(0, 0, width, height);
    layer.globalCompositeOperation = "destination-out";
    layer.drawImage(inside, 0, 0);

    // The outline is the mask, moved to all sides, without the mask itself.
    layer = ring.getContext("2d");
    layer.globalCompositeOperation = "source-over";
    layer.clearRect(0, 0, width, height);
    for (let turn = 0; turn < 12; turn += 1) {
      const angle = (Math.PI * turn) / 6;
      layer.drawImage(inside, WIDTH * dense * Math.cos(angle), WIDTH * dense * Math.sin(angle));
    }
    layer.globalCompositeOperation = "source-in";
    layer.fillStyle = OUTLINE;
    layer.fillRect(0, 0, width, height);
    layer.globalCompositeOperation = "destination-out";
    layer.drawImage(inside, 0, 0);

    context.drawImage(base, 0, 0);
    // Without a mask the whole photograph is shown as it is, to look for the object.
    if (!this.isEmpty) {
      context.drawImage(veil, 0, 0);
      context.drawImage(ring, 0, 0);
    }
    const ratio = width / this.mask.width;
    if (this.rubber) {
      const [left, top, right, bottom] = this.rubber.map((side) => side * ratio);
      this.line(context, dense, () => context.rect(left, top, right - left, bottom - top));
    }
    if (this.cursor) {
      const { at, radius, removes } = this.cursor;
      const [x, y] = [at[0] * ratio, at[1] * ratio];
      this.line(context, dense, () => {
        context.arc(x, y, radius * ratio, 0, 2 * Math.PI);
        const arm = 5 * dense;
        context.moveTo(x - arm, y);
        context.lineTo(x + arm, y);
        if (!removes) {
          context.moveTo(x, y - arm);
          context.lineTo(x, y + arm);
        }
      });
    }
  }

  // A white line on a black one is seen on every photograph.
  line(context, dense, trace) {
    for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
      context.beginPath();
      trace();
      context.strokeStyle = colour;
      context.lineWidth = width * dense;
      context.stroke();
    }
  }
}
