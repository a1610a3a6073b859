// Draw maps on canvases.

// Brightness of a black and of a white pixel of the photograph in an overlay, as in the panels of gradcam_callback.
const BLACK = 16;
const WHITE = 96;

/** Return the weights by which the centres of cells are interpolated to pixels, along one axis. */
function interpolation(cells, pixels) {
  const from = new Uint16Array(pixels);
  const to = new Uint16Array(pixels);
  const share = new Float32Array(pixels);
  for (let i = 0; i < pixels; i++) {
    const place = Math.min(Math.max(((i + 0.5) * cells) / pixels - 0.5, 0), cells - 1);
    from[i] = Math.floor(place);
    to[i] = Math.min(from[i] + 1, cells - 1);
    share[i] = place - from[i];
  }
  return { from, to, share };
}

/** Resample one map to a size in pixels: levels of heat in 0..255, in which `hottest` is 255. */
function resample(maps, i, width, height, hottest) {
  const { h, w } = maps;
  const heat = new Uint8Array(width * height);
  // In units of 1 / 255 of the maximum of this map.
  const unit = hottest > 0 ? maps.maxima[i] / hottest : 0;
  if (unit === 0) return heat;
  const across = interpolation(w, width);
  const down = interpolation(h, height);
  const row = new Float32Array(w);
  const first = i * h * w;
  for (let y = 0; y < height; y++) {
    const above = first + down.from[y] * w;
    const below = first + down.to[y] * w;
    const share = down.share[y];
    for (let x = 0; x < w; x++) row[x] = (maps.units[above + x] * (1 - share) + maps.units[below + x] * share) * unit;
    for (let x = 0; x < width; x++) {
      const left = row[across.from[x]];
      const value = left + (row[across.to[x]] - left) * across.share[x];
      heat[y * width + x] = value > 255 ? 255 : value + 0.5;
    }
  }
  return heat;
}

// Colours of heat -> strength -> the table of its overlays. A look that is looked up is many times faster to draw.
const tables = new WeakMap();

/** Return the pixel of each level of heat over each grey, as `256 * level + grey`; null for the heatmap alone. */
function tableOf(colours, strength) {
  if (!tables.has(colours)) tables.set(colours, new Map());
  const known = tables.get(colours);
  if (!known.has(strength)) {
    // Nobody goes back to every place of the slider.
    if (known.size > 8) known.clear();
    known.set(strength, makeTable(colours, strength));
  }
  return known.get(strength);
}

function makeTable(colours, strength) {
  const bytes = new Uint8ClampedArray(4 * 256 * 256);
  for (let level = 0; level < 256; level++) {
    // The root lets weak heat show, too.
    const cover = strength === null ? 1 : strength * Math.sqrt(level / 255);
    for (let grey = 0; grey < 256; grey++) {
      const base = (BLACK + (grey / 255) * (WHITE - BLACK)) * (1 - cover);
      const place = 4 * (256 * level + grey);
      for (let channel = 0; channel < 3; channel++) bytes[place + channel] = base + cover * colours[3 * level + channel];
      bytes[place + 3] = 255;
    }
  }
  return new Uint32Array(bytes.buffer);
}

/**
 * Draw an overlay, or the heatmap alone.
 *
 * The photograph is grey, so every colour comes from the heat. It is dark and of little contrast, so that its white does
 * not look hot, and its black does not hide heat. The hotter, the more opaque is the colour.
 *
 * @param picture of the run, or null for the heatmap alone.
 * @param strength of the overlay, 0..1.
 */
export function drawHeat(canvas, maps, i, { width, height, picture, colours, hottest, strength, outlined }) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const heat = resample(maps, i, width, height, hottest);
  const table = tableOf(colours, picture ? strength : null);
  const grey = picture?.grey;
  for (let place = 0; place < heat.length; place++) pixels[place] = table[256 * heat[place] + (grey ? grey[place] : 0)];
  if (outlined && picture?.outline) for (const place of picture.outline) pixels[place] = 0xffffffff;
  context.putImageData(image, 0, 0);
  if (maps.maxima[i] === 0) label(context, width, height, "empty map");
}

/** Draw a photograph in colour, with the outline of its mask. */
export function drawPicture(canvas, picture) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  const pixels = new ImageData(picture.colour.data.slice(), picture.width, picture.height);
  for (const place of picture.outline ?? []) pixels.data.fill(255, 4 * place, 4 * place + 4);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** Draw the colours from no heat to the hottest, as a legend. */
export function drawColours(canvas, colours) {
  canvas.width = 256;
  canvas.height = 1;
  const pixels = canvas.getContext("2d").createImageData(256, 1);
  for (let i = 0; i < 256; i++) pixels.data.set([...colours.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** Write a text into the middle of a picture, as large as it fits. In a tall one it runs from the bottom to the top. */
export function label(context, width, height, text) {
  const [along, across] = width < height / 2 ? [height, width] : [width, height];
  const font = (size) => `${size}px system-ui, sans-serif`;
  context.font = font(100);
  const most = (0.92 * along * 100) / context.measureText(text).width;
  context.save();
  context.translate(width / 2, height / 2);
  if (along > width) context.rotate(-Math.PI / 2);
  context.font = font(Math.min(Math.max(10, along / 12), most, 0.8 * across));
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = "#ffffff";
  context.fillText(text, 0, 0);
  context.restore();
}

/** Return 1 - the cosine of two maps of one image: how far the focus has moved. */
export function change(before, after, i) {
  if (!before || !after || before.h !== after.h || before.w !== after.w) return 0;
  const size = after.h * after.w;
  let product = 0;
  let first = 0;
  let second = 0;
  for (let cell = i * size; cell < (i + 1) * size; cell++) {
    product += before.units[cell] * after.units[cell];
    first += before.units[cell] ** 2;
    second += after.units[cell] ** 2;
  }
  if (first === 0 || second === 0) return first === second ? 0 : 1;
  return 1 - product / Math.sqrt(first * second);
}
