// Make elements. A text only ever becomes text, so nothing in a log is read as HTML.

const SVG = "http://www.w3.org/2000/svg";
// Words of Hebrew, Arabic and the scripts beside them, with what joins them to one name.
const LETTER = "[\\u0590-\\u08ff\\ufb1d-\\ufdff\\ufe70-\\ufefc\\u{10800}-\\u{10fff}\\u{1e800}-\\u{1efff}]";
const RIGHT_TO_LEFT = new RegExp(`(${LETTER}(?:[\\s\\d_-]*${LETTER})*)`, "u");

/** Make an element of HTML. Properties that begin with "on" are listeners, those with a dash are attributes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Make an element of SVG; all its properties are attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Put children into an element, unless they are there. A child that is put again loses the keyboard. */
export function fill(element, children) {
  const isFilled = children.length === element.children.length && children.every((child, i) => child === element.children[i]);
  if (!isFilled) element.replaceChildren(...children);
}

export function percent(share) {
  return share === null || share === undefined ? "" : `${Math.round(100 * share)} %`;
}

/** Make a name, whose direction does not reorder the numbers beside it. */
export function named(name) {
  return h("bdi", {}, name);
}

/** Return the parts of a sentence, in which names that are written from right to left do not reorder the numbers. */
export function isolated(sentence) {
  return sentence.split(RIGHT_TO_LEFT).map((part, i) => (i % 2 ? named(part) : part));
}

/** Make a text that is not broken into lines. */
export function whole(text) {
  return h("span", { className: "whole" }, text);
}

/** Return the parts of a name that may be broken behind its underscores and points. */
export function breakable(name) {
  return name.split(/(?<=[_.])/).flatMap((part, i) => (i ? [h("wbr"), part] : [part]));
}

/** Return right or wrong as a sign and a word, since a colour alone is not seen by everybody. */
export function mark(correct) {
  if (correct === null || correct === undefined) return "";
  return correct ? "✓ right" : "✗ wrong";
}

/** Return the class that colours right and wrong. */
export function tone(correct) {
  return correct === true ? "right" : correct === false ? "wrong" : "";
}
