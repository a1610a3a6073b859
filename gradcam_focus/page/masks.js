// The automatic masks: what was taken for the object, and which masks were left out.
import { h, named } from "./dom.js";
import { imageAddress } from "./data.js";

/** Return the automatic masks of a run, those that were left out first. */
export function masksOf({ automatic_masks: { title, note, cells } }) {
  return h("div", {}, h("p", {}, h("strong", {}, `${title}.`), ` ${note}`), h("div", { className: "masks" }, ...cells.map(tile)));
}

function tile({ name, image, fate, used }) {
  const tone = used ? "right" : "wrong";
  return h(
    "figure",
    { className: `tile ${tone}` },
    h("img", { src: imageAddress(image), alt: `${name}, bright inside of its automatic mask` }),
    h("figcaption", {}, named(name), h("div", { className: tone }, fate)),
  );
}
