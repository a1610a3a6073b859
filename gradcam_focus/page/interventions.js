// The interventions: each object on other backgrounds, with the answers of the network.
import { h, named, percent, tone, whole } from "./dom.js";
import { imageAddress } from "./data.js";

// How many objects are shown before somebody asks for all.
const FEW = 6;
const HEADINGS = {
  masks: {
    same_class: "on backgrounds of its class",
    other_class: "on backgrounds of other classes",
    background: "no object",
    foreground: "object alone",
  },
  frame: { same_class: "in frames of its class", other_class: "in frames of other classes" },
};
const WORDS = {
  masks: { few: "objects", all: "objects on other backgrounds", none: "no image has a usable mask" },
  frame: { few: "images", all: "images in other frames", none: "there are no frames to exchange" },
};

// The scalars of the accuracies, with masks and with the frame.
const ACCURACIES = {
  same_class: ["swap_control_accuracy", "frame_control_accuracy"],
  other_class: ["swap_accuracy", "frame_accuracy"],
};

/** Return what was exchanged in a run, in the words of its basis. */
export function wordsOf({ start }) {
  return WORDS[start.basis === "frame" ? "frame" : "masks"];
}

/** Return the interventions of a run at an entry. Objects whose answer the background changed come first. */
export function interventionsOf(log, entry, showsAll, showAll) {
  const { start } = log;
  const sets = Object.entries(HEADINGS[start.basis === "frame" ? "frame" : "masks"]).filter(
    ([name]) => start.sets[name] && entry?.answers[name],
  );
  if (!sets.length) {
    return h("p", { className: "faint" }, start.labels ? `No interventions: ${wordsOf(log).none}.` : "No interventions without labels.");
  }
  const places = new Map();
  for (const [name] of sets) {
    start.sets[name].numbers.forEach((number, place) => {
      if (!places.has(number)) places.set(number, {});
      (places.get(number)[name] ??= []).push(place);
    });
  }
  const rows = [...places].map(([number, own]) => ({ number, own, change: changeOf(entry, number, own) }));
  rows.sort((a, b) => b.change - a.change);
  const shown = showsAll ? rows : rows.slice(0, FEW);
  const head = h(
    "tr",
    {},
    h("th", { scope: "col" }, "as it is", h("br"), rightAsTheyAre(entry, rows)),
    ...sets.map(([name, heading]) => h("th", { scope: "col" }, heading, h("br"), rightInSet(entry, name, rows.length))),
  );
  const body = shown.map(({ number, own }) =>
    h(
      "tr",
      {},
      h("td", {}, tile(start.images[number], entry.predictions[number], `${start.names[number]}, as it is`), name(start, number)),
      ...sets.map(([set, heading]) =>
        h(
          "td",
          {},
          h("div", { className: "tiles" }, ...askedFirst(own[set] ?? [], entry.answers[set]).map((place) =>
            tile(start.sets[set].images[place], entry.answers[set][place], `${start.names[number]}, ${heading}`),
          )),
        ),
      ),
    ),
  );
  const more = rows.length > FEW && !showsAll ? h("button", { type: "button", onclick: showAll }, `Show all ${rows.length} ${wordsOf(log).few}`) : null;
  const others = entry.judged > rows.length
    ? h("p", { className: "others" }, `Only the ${rows.length} watched images are shown here, of ${entry.judged}.`)
    : null;
  return h("div", { className: "interventions" }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...body)), more, others);
}

function name(start, number) {
  const label = start.labels?.[number];
  return h("div", { className: "name" }, named(start.names[number]), label ? h("span", { className: "label" }, "label: ", named(label)) : null);
}

function tile(image, answer, about) {
  if (!answer) {
    // Another entry may ask it, but there may never be one.
    const unasked = "not asked at this entry";
    return h(
      "figure",
      { className: "tile unasked" },
      h("img", { src: imageAddress(image), alt: `${about}: ${unasked}` }),
      h("figcaption", { className: "faint" }, unasked),
    );
  }
  const [prediction, probability, correct] = answer;
  return h(
    "figure",
    { className: `tile ${tone(correct)}` },
    h("img", { src: imageAddress(image), alt: about }),
    h("figcaption", { className: tone(correct) }, named(prediction), " ", whole(`${percent(probability)} ${{ true: "✓", false: "✗" }[correct] ?? ""}`)),
  );
}

/** Return how far the answers get worse from backgrounds of the object's class, or the image itself, to others. */
function changeOf(entry, number, { same_class: same, other_class: other }) {
  if (!other) return 0;
  const before = share(same ? same.map((place) => entry.answers.same_class[place]) : [entry.predictions[number]]);
  return before - share(other.map((place) => entry.answers.other_class[place])) || 0;
}

function askedFirst(places, answers) {
  return [...places].sort((a, b) => Number(!answers[a]) - Number(!answers[b]));
}

function rightAsTheyAre({ predictions, judged, verdict }, rows) {
  return rightIn(verdict?.probe_accuracy, rows.map(({ number }) => predictions[number]), judged, rows.length);
}

function rightInSet({ answers, judged, scalars }, set, shown) {
  return rightIn(ACCURACIES[set]?.map((name) => scalars[name]).find(isKnown), answers[set], judged, shown);
}

/**
 * Say how many answers are right, as the verdict has it: each object counts the same, however many backgrounds it has.
 *
 * @param accuracy of the verdict, if it has one.
 * @param answers that are shown.
 * @param judged the number of images that the verdict rests on.
 * @param shown the number of images that are shown.
 */
function rightIn(accuracy, answers, judged, shown) {
  const answered = answers.filter(isAnswer).length;
  // A verdict may rest on more images than are shown. Only those are painted out or shown alone.
  const isPart = judged > shown || answered < answers.filter(Boolean).length;
  if (!isKnown(accuracy) && !answered) return "no answer";
  if (!isKnown(accuracy)) return `${percent(share(answers))} ${isPart ? `of ${answered} image${answered > 1 ? "s" : ""} ` : ""}right`;
  return judged > shown ? `${percent(accuracy)} of ${judged} images right` : `${percent(accuracy)} right`;
}

function isKnown(value) {
  return value !== undefined && value !== null;
}

/** Return how many answers are right; NaN if there is none. */
function share(answers) {
  const asked = answers.filter(isAnswer);
  return asked.filter(([, , correct]) => correct).length / asked.length;
}

/** Return true if an image was asked at this entry, and the outputs were finite. */
function isAnswer(answer) {
  return typeof answer?.[2] === "boolean";
}
