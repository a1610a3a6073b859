// Plots of lines, as SVG.
import { breakable, h, svg } from "./dom.js";

// Okabe and Ito's colours, which people with colour-blindness tell apart; focus.css says them, for each theme. Each line
// also has its own dashes.
const LINES = [1, 2, 3, 4, 5, 6, 7].map((i) => `var(--line-${i})`);
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 3", "1 4"];
const WIDTH = 460;
const HEIGHT = 220;
const LEFT = 42;
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 30;
// The most ticks that are named, the size of their names, as focus.css says it, and the room between two.
const TICKS = 7;
const FONT = "11px Roboto, system-ui, sans-serif";
const ROOM = 8;
// How a value is said in each unit.
const UNITS = {
  "": (value, digits) => (digits ? value.toFixed(digits) : String(Number(value.toFixed(3)))),
  "%": (value) => `${Math.round(100 * value)} %`,
  points: (value) => String(Math.round(100 * value)),
};

/** Return the look of the i-th line. */
export function look(i) {
  return { colour: LINES[i % LINES.length], dash: DASHES[i % DASHES.length] };
}

/**
 * Draw lines over the epochs, or over the layers.
 *
 * @param title of the plot.
 * @param ticks the label of each place on the x axis.
 * @param at the number of each place, such as its epoch, in ascending order; null sets all places equally far apart.
 * @param lines each has a name, values (null where there is none), and optionally low and high, the bounds of a band.
 * @param cursor the place of the chosen epoch; null draws none.
 * @param reference a value that gets a faint line, such as chance.
 * @param unit of the values, a key of UNITS.
 * @param partly says at which places the values are of a part of the images, and which; their points are hollow.
 */
export function plot({ title, ticks, at = null, lines, cursor = null, reference = null, range = null, unit = "", partly = null }) {
  const drawn = lines.filter((line) => line.values.some(isNumber));
  const values = drawn.flatMap((line) => [line.values, line.low ?? [], line.high ?? []]).flat().filter(isNumber);
  if (reference !== null) values.push(reference);
  let [low, high] = range ?? [Math.min(...values), Math.max(...values)];
  if (!range) {
    const margin = (high - low || 1) * 0.06;
    [low, high] = [low - margin, high + margin];
  }
  const places = at ?? ticks.map((_, i) => i);
  const [first, last] = [places[0], places.at(-1)];
  const across = (place) => LEFT + (first === last ? 0.5 : (place - first) / (last - first)) * (WIDTH - LEFT - RIGHT);
  const x = (i) => across(places[i]);
  const y = (value) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": describe(title, drawn, unit) });
  for (const value of marks(low, high)) {
    picture.append(
      svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" }),
      svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, UNITS[unit](value)),
    );
  }
  if (reference !== null) {
    picture.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(reference), y2: y(reference), class: "reference" }));
  }
  const { marked, explained } = at ? numbersBelow(ticks, at, across) : namesBelow(ticks, across);
  for (const { x: middle, text } of marked) {
    picture.append(svg("text", { x: middle, y: HEIGHT - 10, "text-anchor": "middle" }, text));
  }
  drawn.forEach((line, number) => {
    const { colour, dash } = line.look ?? look(number);
    if (line.low) picture.append(...bands(line, x, y, colour));
    for (const part of parts(line.values)) {
      const points = part.map((i) => `${x(i)},${y(line.values[i])}`).join(" ");
      const style = { points, fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash };
      picture.append(svg("polyline", style));
    }
    line.values.forEach((value, i) => {
      if (!isNumber(value)) return;
      const size = ticks.length > 40 ? 1.5 : 2.5;
      const dot = svg("circle", partly?.at[i] ? { cx: x(i), cy: y(value), r: size + 0.5, ...hollow(colour) } : { cx: x(i), cy: y(value), r: size, fill: colour });
      dot.append(svg("title", {}, `${line.name}, ${ticks[i]}: ${UNITS[unit](value, 3)}`));
      picture.append(dot);
    });
  });
  if (cursor !== null && cursor >= 0) {
    picture.append(svg("line", { x1: x(cursor), x2: x(cursor), y1: TOP, y2: HEIGHT - BOTTOM, class: "cursor" }));
  }
  const legend = drawn.map((line, number) => legendEntry(line, line.look ?? look(number)));
  const numbers = explained.map((i) => h("li", { value: i + 1 }, ...breakable(ticks[i])));
  return h(
    "figure",
    { className: "plot" },
    h("figcaption", {}, title),
    h("div", { className: "legend" }, ...legend, partly ? partlyEntry(partly) : null),
    picture,
    numbers.length ? h("ol", { className: "legend" }, ...numbers) : null,
  );
}

/** Name the places below a plot. Names that would cover each other are numbers, which are explained. */
function namesBelow(names, across) {
  const every = Math.max(1, Math.ceil(names.length / TICKS));
  const chosen = names.map((_, i) => i).filter((i) => i % every === 0);
  const fits = widest(names) < ((WIDTH - LEFT - RIGHT) / Math.max(1, names.length - 1)) * every - ROOM;
  const marked = chosen.map((i) => ({ x: across(i), text: fits ? names[i] : String(i + 1) }));
  return { marked, explained: fits ? [] : chosen };
}

/** Mark each place below a plot, or round numbers if there are many. A text that would cover another one is left out. */
function numbersBelow(texts, at, across) {
  const round = marks(Math.max(0, at[0]), at.at(-1), TICKS - 1, 1).map((place) => ({ place, text: String(place) }));
  const all = at.map((place, i) => ({ place, text: texts[i] }));
  const marked = [];
  let end = -Infinity;
  for (const { place, text } of at.length > TICKS ? [all[0], ...round] : all) {
    const half = widest([text]) / 2;
    const middle = Math.min(across(place), WIDTH - half);
    if (middle - half < end + ROOM) continue;
    end = middle + half;
    marked.push({ x: middle, text });
  }
  return { marked, explained: [] };
}

/** Return the width of the widest of some names below a plot. */
function widest(names) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = FONT;
  return Math.max(0, ...names.map((name) => context.measureText(name).width));
}

function legendEntry(line, { colour, dash }) {
  const sample = svg("svg", { viewBox: "0 0 26 8", class: "sample", "aria-hidden": "true" });
  sample.append(svg("line", { x1: 0, x2: 26, y1: 4, y2: 4, stroke: colour, "stroke-width": 3, "stroke-dasharray": dash }));
  return h("span", {}, sample, ...breakable(line.name));
}

function partlyEntry({ text }) {
  const sample = svg("svg", { viewBox: "0 0 26 8", class: "sample", "aria-hidden": "true" });
  sample.append(svg("circle", { cx: 18, cy: 4, r: 3, ...hollow("currentColor") }));
  return h("span", {}, sample, text);
}

function hollow(colour) {
  return { fill: "var(--ground)", stroke: colour, "stroke-width": 1.5 };
}

function bands(line, x, y, colour) {
  return parts(line.low).map((part) => {
    const forth = part.map((i) => `${x(i)},${y(line.high[i])}`);
    const back = part.toReversed().map((i) => `${x(i)},${y(line.low[i])}`);
    return svg("polygon", { points: [...forth, ...back].join(" "), fill: colour, opacity: 0.18 });
  });
}

/** Return the places of values in runs without a gap. */
function parts(values) {
  const found = [[]];
  values.forEach((value, i) => {
    if (isNumber(value)) found.at(-1).push(i);
    else if (found.at(-1).length) found.push([]);
  });
  return found.filter((part) => part.length);
}

/** Return about so many round values between two, `least` apart at least. */
function marks(low, high, count = 4, least = 0) {
  const rough = Math.max((high - low) / count, least);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1000; value += step) found.push(value);
  return found;
}

function describe(title, lines, unit) {
  const last = (line) => line.values.filter(isNumber).at(-1);
  return `${title}. Newest values: ${lines.map((line) => `${line.name} ${UNITS[unit](last(line), 2)}`).join(", ")}`;
}

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}
